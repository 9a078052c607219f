"""Puts shipped profiles and cost models into the built package; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithProfiles(build_py):
    """An editable installation reads them where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for kind in ("profiles", "cost_models"):
                into = Path(self.build_lib, "beta_jax", "profiles", "shipped", kind)
                into.mkdir(parents=True, exist_ok=True)
                for file in Path("data", kind).glob("*.json"):
                    shutil.copy(file, into)


setup(cmdclass={"build_py": WithProfiles})
