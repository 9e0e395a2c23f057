"""Which forms of pairs there are, and which one a record has."""

from collections.abc import Sequence

from lib.data.pair_forms.base import PairForm, Record
from lib.data.pair_forms.llama_factory import LlamaFactory
from lib.data.pair_forms.llava import Llava
from lib.data.pair_forms.ms_swift import MsSwift
from lib.data.pair_forms.ours import Ours
from lib.data.pair_forms.rlhf_v import RlhfV
from lib.data.pair_forms.trl import Trl

#: By name; the first that fits a record is its form, which is why the plainest is the last.
FORMS: dict[str, type[PairForm]] = {
    form.name: form for form in (Ours, Llava, MsSwift, LlamaFactory, RlhfV, Trl)
}


def form_of(record: Record) -> type[PairForm] | None:
    """The form of a record; None for none that is known."""
    return next((form for form in FORMS.values() if form.fits(record)), None)


def known_forms(forms: Sequence[type[PairForm]] = tuple(FORMS.values())) -> str:
    """The forms in words, a line each."""
    return "\n".join(f"  {form.name}: {form.title}" for form in forms)
