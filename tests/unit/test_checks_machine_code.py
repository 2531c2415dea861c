"""CUDA's compatibility rule, and flash-attn's kernels by their mangled names."""

from __future__ import annotations

import pytest
from binary_compatibility import RUNS_ON
from checks_package import family

machine_code, flash = family("machine_code"), family("flash_attention")
A10, A100, H100 = ({"name": n, "capability": c} for n, c in (("A10", "8.6"), ("A100", "8.0"), ("H100", "9.0")))
# As `cuobjdump --list-text` prints them for flash-attn 2.8.3.
BF16_128 = "ILi128ELi128ELi64ELi4ELb0ELb0EN7cutlass10bfloat16_tE19Flash_kernel_traitsILi128ELi128ELi64ELi4ES3_EE"
FP16_96 = "ILi96ELi64ELi128ELi4ELb0ELb0EN7cutlass6half_tE19Flash_kernel_traitsILi96ELi64ELi128ELi4ES3_EE"
TRAITS, PARAMS = "I23Flash_fwd_kernel_traits", "Lb0ELb1ELb0ELb0ELb0ELb1ELb0ELb0EEEvNS_16Flash_fwd_paramsE"
LISTED = (
    f"SASS text section 1 : x-_ZN5flash16flash_fwd_kernel{TRAITS}{BF16_128}{PARAMS}.sm_80.elf.bin\n"
    f"SASS text section 2 : x-_ZN5flash24flash_fwd_splitkv_kernel{TRAITS}{FP16_96}{PARAMS}.sm_90.elf.bin\n"
)


@pytest.mark.parametrize(("arch", "capability", "runs"), [*RUNS_ON, ("nonsense", "8.0", False), ("90b", "9.0", False)])
def test_machine_code_runs_within_its_major_version(arch, capability, runs):
    assert machine_code.runs_on(arch, capability) is runs


@pytest.mark.parametrize(
    ("arch", "capability", "runs"), [("80", "9.0", True), ("90", "8.6", False), ("90a", "12.0", False)]
)
def test_ptx_is_compiled_for_later_gpus(arch, capability, runs):
    assert machine_code.compiles_for(arch, capability) is runs


def test_the_gpus_without_code_are_named():
    answer = machine_code.answer_for([A10, A100, H100], machine=["80"], subject="it")
    assert answer.status == "failed"
    assert "none of it runs on H100 (9.0)" in answer.measured
    assert machine_code.answer_for([A10, A100], machine=["80"], subject="it").status == "passed"
    assert machine_code.answer_for([H100], machine=["80"], portable=["80"], subject="it").status == "passed"
    assert machine_code.answer_for([A10], machine=[], subject="it").status == "failed"


def test_kernels_are_told_by_function_head_dim_and_type(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_code, "require_tool", lambda name: tmp_path / name)
    monkeypatch.setattr(machine_code, "run_tool", lambda *_: LISTED)
    assert flash.forward_kernels(machine_code.kernels(tmp_path)) == {
        ("flash_fwd_kernel", 128, "bf16"): {"80"},
        ("flash_fwd_splitkv_kernel", 96, "fp16"): {"90"},
    }


def test_instructions_are_counted_with_their_predicates():
    listing = """
        /*0100*/                   SHFL.BFLY PT, R5, R4, 0x2, 0x1f ;
        /*0110*/               @P0 SHFL.IDX PT, R5, R4, RZ, 0x1f ;
        /*0120*/              @!P1 BRA `(.L_x_3) ;
        /*0130*/                   HMMA.16816.F32.BF16 R8, R4, R12, R8 ;
                                   /* 0x000000000404723c */
    """
    assert machine_code.INSTRUCTION.findall(listing) == ["SHFL", "SHFL", "BRA", "HMMA"]


@pytest.mark.parametrize(
    ("tag", "suits"),
    [
        ("cp311-cp311-linux_x86_64", True),
        ("cp311-cp311-manylinux2014_x86_64", True),
        ("cp312-cp312-linux_x86_64", False),
        ("cp311-cp311-linux_aarch64", False),
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp39-abi3-linux_x86_64", True),
        ("cp312-abi3-linux_x86_64", False),
    ],
)
def test_a_wheels_tag_is_held_against_the_interpreter(tag, suits):
    assert flash.suits(tag, "cp311", "linux_x86_64") is suits
