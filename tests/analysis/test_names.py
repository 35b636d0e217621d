"""A name of `gradlab.analysis` means one thing."""

from pathlib import Path

import gradlab.analysis


def test_no_public_name_is_that_of_a_module_too():
    modules = {path.stem for path in Path(gradlab.analysis.__file__).parent.glob("*.py")}
    assert len(modules) > 20
    assert modules & set(gradlab.analysis.__all__) == set()
