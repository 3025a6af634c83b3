"""The one compiled piece, which facetpu also runs without: see facetpu/mtcnn/areas.py."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "facetpu.mtcnn._area",
            ["facetpu/mtcnn/_area.c"],
            # Not to fuse multiplications and additions: every machine gives the same bits.
            extra_compile_args=["-O3", "-std=c99", "-ffp-contract=off"],
            libraries=["m"],
            optional=True,  # where there is no compiler, pip installs the rest
        )
    ]
)
