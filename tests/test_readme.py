"""What the README says was measured is what was measured."""

import pytest
from conftest import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.md")), ids=lambda path: path.name)
def test_the_readme_quotes_each_committed_benchmark_to_the_letter(path):
    assert path.read_text().strip() in (ROOT / "README.md").read_text()
