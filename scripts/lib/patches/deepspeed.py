"""DeepSpeed: no compiled operators on a CPU."""


def without_compiled_operators() -> None:
    """Has DeepSpeed compile nothing on a CPU: no compiler is needed, no minute of waiting, no lock
    file that a killed build leaves.

    Its one operator for CPUs reduces through shared memory in inference; training reduces through
    gloo in any case. The table of usable operators is DeepSpeed's own, made on first access and
    kept for edits (deepspeed/ops/__init__.py).
    """
    import deepspeed.ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    deepspeed.ops.__compatible_ops__ = {
        **dict.fromkeys(ALL_OPS, False),
        "deepspeed_not_implemented": False,
    }
