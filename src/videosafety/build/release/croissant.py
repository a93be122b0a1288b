"""croissant.json of a release: its files and columns as a machine reads them, with the responsible-AI fields.

Croissant 1.0 and its RAI vocabulary 1.0 (docs.mlcommons.org/croissant). Only what anybody may see is listed; the
restricted part is told of in words. ``mlcroissant`` validates the file and loads rows by it.

Example:
    >>> croissant(config, Path("release"), tally, {})["conformsTo"]                           # doctest: +SKIP
    ['http://mlcommons.org/croissant/1.0', 'http://mlcommons.org/croissant/RAI/1.0']
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videosafety.build.release.config import PublishConfig
from videosafety.build.release.folder import Tally
from videosafety.build.release.parquet import CLIPS, DATA, SPLITS, clip_schema, row_schema
from videosafety.core.store import sha256_file

STANDARDS = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
TYPES = {"string": "sc:Text", "bool": "sc:Boolean", "int64": "sc:Integer", "double": "sc:Float"}
CR = ("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
      "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
      "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform")  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in CR},
}  # fmt: skip


def croissant(config: PublishConfig, folder: Path, tally: Tally, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a release whose Parquet files are written.

    Args:
        config: names and contacts.
        folder: of the release.
        tally: what was counted.
        provenance: of the build; ``annotators`` is read.
    """
    splits = [split for split in SPLITS if tally.splits[split]]
    files = {name: f"{DATA}/{name}.parquet" for name in [*splits, CLIPS]}
    sets = [_record_set(name, f"file-{name}", clip_schema() if name == CLIPS else row_schema()) for name in files]
    made: dict[str, Any] = {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": STANDARDS, "name": config.name,
        "description": "Questions about short clips in several languages, each with three safety labels: what is shown,"
                       " what is asked, what must be defended. Words of what is harmful stand in a restricted part"
                       " that is not listed here.",
        "version": config.version, "keywords": ["safety", "video", "multimodal", "multilingual"],
        "inLanguage": tally.languages, "isLiveDataset": False,
        "distribution": [_file_object(folder, name, path) for name, path in files.items()], "recordSet": sets,
        **_responsible(provenance),
    }  # fmt: skip
    given = {"datePublished": config.date, "license": config.licence, "url": config.url}
    return made | {key: value for key, value in given.items() if value is not None}


def _file_object(folder: Path, name: str, path: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": f"file-{name}", "name": f"file-{name}", "contentUrl": path,
        "encodingFormat": "application/x-parquet", "sha256": sha256_file(folder / path),
        "contentSize": f"{(folder / path).stat().st_size} B",
    }  # fmt: skip


def _record_set(name: str, file: str, schema: Any) -> dict[str, Any]:
    """The columns with one value; those with lists stand in Parquet alone."""
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{column.name}", "name": f"{name}/{column.name}",
         "dataType": TYPES[str(column.type)],
         "source": {"fileObject": {"@id": file}, "extract": {"column": column.name}}}
        for column in schema if str(column.type) in TYPES
    ]  # fmt: skip
    key = "sha256" if name == CLIPS else "id"
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "key": {"@id": f"{name}/{key}"}, "field": fields}


def _responsible(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the RAI vocabulary, in plain words."""
    tools = sorted(map(str, provenance.get("annotators") or ()))
    said: dict[str, Any] = {
        "dataCollection": "Clips from folders of the publisher; the source and licence of each stand in clips.parquet.",
        "dataCollectionType": ["Secondary Data Analysis", "Others"],
        "dataCollectionMissingData": "Words of harmful requests and descriptions of harmful clips are null here.",
        "dataPreprocessingProtocol": [
            "Files that cannot be decoded, still clips, exact and near duplicates are left out.",
            "Clips of one near-duplicate cluster, templates in any language, and nearly equal queries never stand on"
            " both sides of evaluation.",
        ],
        "dataAnnotationProtocol": [
            "Several annotators describe and label a clip on their own; what they disagree on goes to an adjudicator or"
            " to people. Queries come from templates with fixed labels.",
        ],
        "annotationsPerItem": "All votes of a clip stand in the column votes of clips.parquet.",
        "machineAnnotationTools": tools or ["videosafety build"],
        "dataUseCases": ["Testing and training the safety of models that see video."],
        "dataLimitations": [
            "Labels follow one taxonomy and its policies; communities differ.",
            "Queries come from templates and are no sample of what people ask.",
        ],
        "dataBiases": ["Languages have different templates: numbers by language do not compare the languages."],
        "personalSensitiveInformation": [
            "Clips may show people. They are not part of a release unless its publisher says so; they are named by hash"
            " and can be withdrawn.",
        ],
        "dataSocialImpact": "Meant to make models refuse harmful requests and help with harmless ones. The restricted"
                            " part holds requests for harm, without instructions, and should be given with care.",
        "dataReleaseMaintenancePlan": "availability.jsonl names withdrawn clips; later versions leave them out.",
    }  # fmt: skip
    return {f"rai:{key}": value for key, value in said.items()}
