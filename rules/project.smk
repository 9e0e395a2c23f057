# Has the Snakefile that includes it find the project's own code, and nobody else's.

import os
import sys
import tarfile
import tempfile
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import HostingProviderFile, LocalSourceFile


def checked_out(file):
    """The Snakefile of a hosted repository (`github(...)`, as snakedeploy writes it) in a copy of the whole project at its commit, under .snakemake: Snakemake itself fetches single files, and the scripts import scripts/lib."""
    repository = file.hosted_repo.repo
    commit = repository.commit(file.ref)
    folder = Path(".snakemake", "pds-dpo", commit.hexsha).resolve()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent))
        with tempfile.TemporaryFile() as archive:
            repository.archive(archive, commit.hexsha)
            archive.seek(0)
            tarfile.open(fileobj=archive).extractall(part, filter="data")
        (part / ".commit").write_text(commit.hexsha)  # there is no git to ask
        try:
            part.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return LocalSourceFile(str(folder / file.path))


# This file's own place on the stack is the last.
SNAKEFILE = workflow.included_stack[-2]
if isinstance(SNAKEFILE, HostingProviderFile):
    workflow.included_stack[-2] = SNAKEFILE = checked_out(SNAKEFILE)
elif not isinstance(SNAKEFILE, LocalSourceFile):
    raise WorkflowError(
        f"{SNAKEFILE}: this workflow runs from a clone: its scripts are more than the single files"
        " that Snakemake fetches. Clone the repository and name its Snakefile in `snakefile:`, or"
        " take github(...) or gitlab(...)."
    )

SCRIPTS = Path(os.path.abspath(str(SNAKEFILE))).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))
import lib

if Path(lib.__path__[0]).resolve() != (SCRIPTS / "lib").resolve():
    raise WorkflowError(
        f"{SNAKEFILE}: this workflow imports its package `lib`, and another one of that name is"
        f" already loaded, from {lib.__path__[0]}. Rename that one; or, if it is that of another"
        " clone of this workflow, use one clone for all modules."
    )
