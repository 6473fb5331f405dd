"""The notebooks run from top to bottom on small data, and no cell prints an error."""

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import ROOT


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))
# Jupyter's own deprecations.
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs(name, trained, sweep, study, cable, cache, monkeypatch, tmp_path):
    monkeypatch.setenv(
        "SEGNET_NOTEBOOK_OVERRIDES", f"data=synthetic data.image_size=64 data.root={cable} data.cache_dir={cache}"
    )
    monkeypatch.setenv("SEGNET_NOTEBOOK_RUN", str(trained))
    monkeypatch.setenv("SEGNET_NOTEBOOK_RUNS", str(sweep))
    monkeypatch.setenv("SEGNET_NOTEBOOK_STUDY", str(study))
    monkeypatch.setenv("SEGNET_NOTEBOOK_SCALE", "24 64 2")
    monkeypatch.setenv("SEGNET_NOTEBOOK_FOLDER", str(tmp_path))
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    images = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(images) >= 2
