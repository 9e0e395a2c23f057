"""A data set described for machines: Croissant 1.0 (https://docs.mlcommons.org/croissant/)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lib.data.data_sets import Split
from lib.data.export_forms.base import name_in

if TYPE_CHECKING:
    import pyarrow as pa

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
WHAT = {
    "id": "The prompt's id: its topic and a hash of its text.",
    "topic": "The prompt's topic.",
    "image_prompt": "The text-to-image prompt.",
    "chosen_policy": "The model that wrote the chosen answer.",
    "rejected_policy": "The model that wrote the rejected answer.",
    "chosen_score": "The reward of the chosen answer.",
    "rejected_score": "The reward of the rejected answer.",
    "margin": "The difference of the two rewards.",
    "image_reward": "The reward by which the image was picked.",
    "guidance_scale": "The image's guidance scale.",
    "image_seed": "The image's seed.",
    "images": "The image.",
}
#: The texts of a pair in LLaVA's JSON: where they stand, and what they are. In the parquet files
#: they are messages, in which Croissant's paths cannot reach them.
TEXTS = {
    "id": ("$[*].id", "The prompt's id."),
    "image": ("$[*].image", "The image's file."),
    "prompt": ("$[*].conversations[0].value", "What is asked, behind the image's place."),
    "chosen": ("$[*].conversations[1].value", "The chosen answer."),
    "rejected": ("$[*].rejected_conversations[1].value", "The rejected answer."),
}


def croissant(
    about: Mapping[str, str],
    splits: Mapping[Split, str],
    schema: "pa.Schema",
) -> dict[str, Any]:
    """The description.

    `about`: `name`, `description`, `license` (its name or address) and `citeAs`; `splits`: the
    splits, each with the sha256 (hex) of its file in LLaVA's form; `schema`: of the parquet files.
    """
    files = {split: name_in(split, "llava.json") for split in splits}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "isLiveDataset": False,
        **about,
        "distribution": [
            *(file_set(split) for split in splits),
            *(file_object(files[split], sha256) for split, sha256 in splits.items()),
        ],
        "recordSet": [
            records
            for split in splits
            for records in (columns_of(split, schema), texts_of(split, files[split]))
        ],
    }


def file_set(split: str) -> dict[str, Any]:
    """The parquet files of a split, in the folder of the description."""
    return {
        "@type": "cr:FileSet",
        "@id": f"parquet-{split}",
        "name": f"parquet-{split}",
        "description": f"The parquet files of the split {split}.",
        "encodingFormat": "application/x-parquet",
        "includes": f"data/{split}-*.parquet",
    }


def file_object(path: str, sha256: str) -> dict[str, Any]:
    """A file in the folder of the description."""
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "encodingFormat": "application/json",
        "sha256": sha256,
    }


def columns_of(split: str, schema: "pa.Schema") -> dict[str, Any]:
    """The pairs of a split by the columns of its parquet files."""
    fields = [
        field(
            f"{split}/{column.name}",
            WHAT[column.name],
            type_of(column.type),
            {"fileSet": {"@id": f"parquet-{split}"}, "extract": {"column": column.name}},
        )
        for column in schema
        if column.name in WHAT
    ]
    return record_set(split, f"The pairs of the split {split}: images and what is known.", fields)


def texts_of(split: str, file: str) -> dict[str, Any]:
    """The texts of a split's pairs."""
    name = f"{split}-texts"
    fields = [
        field(
            f"{name}/{key}",
            what,
            {"dataType": "sc:Text"},
            {"fileObject": {"@id": file}, "extract": {"jsonPath": path}},
        )
        for key, (path, what) in TEXTS.items()
    ]
    return record_set(name, f"The pairs of the split {split}: instruction and answers.", fields)


def record_set(name: str, what: str, fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Records of the same fields, known by their prompt ids."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": what,
        "key": {"@id": f"{name}/id"},
        "field": fields,
    }


def field(
    name: str, what: str, kind: Mapping[str, Any], source: Mapping[str, Any]
) -> dict[str, Any]:
    """A field of records."""
    of_image = {"transform": {"jsonPath": "bytes"}} if name.endswith("/images") else {}
    return {
        "@type": "cr:Field",
        "@id": name,
        "name": name,
        "description": what,
        **kind,
        "source": {**source, **of_image},
    }


def type_of(kind: "pa.DataType") -> dict[str, Any]:
    """A column's type in Croissant's words."""
    import pyarrow.types as types

    if types.is_list(kind):
        return {"dataType": "sc:ImageObject", "repeated": True}
    if types.is_floating(kind):
        return {"dataType": "sc:Float"}
    return {"dataType": "sc:Integer" if types.is_integer(kind) else "sc:Text"}
