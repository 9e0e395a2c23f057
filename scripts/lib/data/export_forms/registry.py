"""The forms that there are. To add one: a file beside this one, and a line here."""

from pathlib import Path

from lib.data.export_forms.base import ExportForm
from lib.data.export_forms.llama_factory import LlamaFactory
from lib.data.export_forms.llava import Llava
from lib.data.export_forms.ms_swift import MsSwift
from lib.data.export_forms.pictures import Pictures
from lib.data.export_forms.trl_parquet import TrlParquet
from lib.data.export_forms.web_dataset import WebDataset

FORMS: tuple[type[ExportForm], ...] = (
    TrlParquet,
    Llava,
    LlamaFactory,
    MsSwift,
    Pictures,
    WebDataset,
)
#: The files of every data set that its forms write.
FORM_FILES = tuple(name for form in FORMS for name in form.FILES)
#: What a data set had before there were more forms.
_FILES_OF_BEFORE = {"llava.json"}


def is_of_before(folder: Path) -> bool:
    """Whether a data set is from before there were more forms: `prompt` of its parquet files is
    the text-to-image prompt.
    """
    return not any((folder / name).exists() for name in FORM_FILES if name not in _FILES_OF_BEFORE)
