"""The named axis whose indices are the workers."""

import jax


def workers_on(axis_name: str, caller: str) -> int:
    """The number of workers on an axis.

    Raises:
      NameError: outside the axis; it says how to get inside.
    """
    try:
        return jax.lax.axis_size(axis_name)
    except NameError:
        raise NameError(
            f"`{caller}` needs the named axis {axis_name!r}, and no such axis "
            "is in scope. Run the step through `gmc_jax.simulate` (all workers on one "
            "device) or `gmc_jax.distribute` (each worker on devices of its own), or "
            f"name your own axis with `{caller}(..., axis_name=...)`."
        ) from None
