"""How each claim is measured: one function a claim, under the name that `claims.toml` calls it by."""

from __future__ import annotations

from assay.claims import by_arithmetic, by_packages, by_report
from assay.claims.table import Measure

FUNCTIONS: dict[str, Measure] = {
    function.__name__: function
    for function in (
        by_arithmetic.driver_minimum,
        by_report.toolkit_beside_torch,
        by_packages.torch_builds,
        by_packages.cublaslt_soname,
        by_packages.shfl_declarations,
        by_report.flash_attn_compiler,
        by_packages.nvjitlink_symbol,
        by_packages.flash_attn_docstring,
        by_arithmetic.gpu_names,
        by_arithmetic.bf16_product,
        by_arithmetic.timeit_syntax,
        by_report.soak,
        by_packages.environment_switches,
        by_arithmetic.arithmetic_floor,
        by_arithmetic.memory,
    )
}
