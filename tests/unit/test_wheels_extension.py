"""What a wheel's shared object says of itself."""

from __future__ import annotations

import pytest
from wheel_factory import NEW_ABI, OLD_ABI, REFUSALS, fatbin, kernel_names, shared_object

from assay.wheels import extension
from assay.wheels.extension import Kernel


def test_reads_cuda_abi_archs_kernels_and_host_compiler() -> None:
    inside = extension.read(shared_object(device_code=fatbin(["90", "80", "80"])))
    assert inside.cuda_major == 12
    assert inside.cxx11_abi is False
    assert inside.archs == ("80", "90")
    assert inside.modules == {"90": 1, "80": 2}
    assert inside.ptx == ()
    assert inside.gcc == "12.2.0"
    assert len(inside.kernels) == 2 * 3 * 2 * 2


@pytest.mark.parametrize(
    ("undefined", "abi"),
    [
        ([OLD_ABI], False),
        ([NEW_ABI], True),
        ([OLD_ABI, NEW_ABI], True),
        (["_ZN3c104cuda14getCurrentCUDAStreamEa"], None),  # no string in its signature
        (["_ZNSsC1EPKcRKSaIcE"], None),  # std::string itself is not torch's
    ],
)
def test_the_abi_is_the_one_that_torchs_symbols_are_spelled_in(undefined: list[str], abi: bool | None) -> None:
    assert extension.read(shared_object(undefined=undefined)).cxx11_abi is abi


def test_cuda_major_comes_from_the_runtime_that_is_needed() -> None:
    assert extension.read(shared_object(needed=["libcudart.so.13"])).cuda_major == 13
    assert extension.read(shared_object(needed=["libc10.so"])).cuda_major is None


def test_ptx_is_not_machine_code() -> None:
    inside = extension.read(shared_object(device_code=fatbin(["80"]) + fatbin(["90"], kind=1)))
    assert (inside.archs, inside.ptx) == (("80",), ("90",))


def test_padding_between_containers_is_skipped() -> None:
    assert [arch for _, arch in extension.fatbin_entries(fatbin(["80"]) + bytes(16) + fatbin(["90"]))] == ["80", "90"]


@pytest.mark.parametrize("damage", [fatbin(["80"])[:-8], b"\1" * 64, fatbin(["80"]).replace(b"\x40", b"\x01", 1)])
def test_damaged_device_code_is_an_error(damage: bytes) -> None:
    with pytest.raises(ValueError, match="nv_fatbin"):
        list(extension.fatbin_entries(damage))


def test_what_is_no_elf_file_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a readable ELF"):
        extension.read(b"MZ" + bytes(100))


@pytest.mark.parametrize(("direction", "dtype"), [("fwd", "bf16"), ("fwd", "fp16"), ("fwd-split", "bf16")])
def test_kernels_are_told_apart_by_direction_head_dim_type_and_mask(direction: str, dtype: str) -> None:
    found = extension.kernels(kernel_names([96], [dtype], [direction]))
    assert found == {Kernel(direction, 96, dtype, False), Kernel(direction, 96, dtype, True)}  # type: ignore[arg-type]


def test_helper_kernels_and_other_names_are_none() -> None:
    combine = (
        b"_ZN5flash32flash_fwd_splitkv_combine_kernelI23Flash_fwd_kernel_traitsILi192ELi64ELi64ELi4ELb0ELb0EN7cutlass"
        b"6half_tE19Flash_kernel_traitsILi192ELi64ELi64ELi4ES3_EELi8ELi1ELb0EEEvNS_16Flash_fwd_paramsE\0"
    )
    assert extension.kernels(combine + b"_ZN66_INTERNAL_72bd2797_29_flash_bwd_hdim96_bf16_sm80_cu_7e75520b\0") == set()


def test_what_the_api_refuses_is_read_from_its_messages() -> None:
    refuses = extension.read(shared_object(names=REFUSALS)).refuses
    assert refuses == {"backward", "dropout", "alibi", "softcap", "local attention"}
    assert extension.read(shared_object()).refuses == set()
