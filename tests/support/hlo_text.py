"""Programs as XLA prints them, for tests of what is read from their text."""

import textwrap

ADD = """
%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}
"""


def program(body: str, *computations: str, name: str = "jit_step") -> str:
    """A module whose entry computation has these lines, as XLA prints one."""
    header = (
        f"HloModule {name}, is_scheduled=true, entry_computation_layout="
        "{(f32[1000]{0})->(f32[8000]{0}, /*index=1*/f32[])}, num_partitions=8\n"
    )
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "  ")
    entry = f"ENTRY %main.7_spmd (p: f32[1000]) -> f32[8000] {{\n{lines}\n}}\n"
    return "\n".join([header, ADD, *map(textwrap.dedent, computations), entry])


def reducing(name: str, size: int, then: str = "") -> str:
    """A computation that all-reduces some floats, after another line."""
    return f"""
%{name} (q: f32[{size}]) -> f32[{size}] {{
  %q = f32[{size}]{{0}} parameter(0)
  {then or "%nothing = s32[] constant(0)"}
  ROOT %r = f32[{size}]{{0}} all-reduce(%q), replica_groups={{{{0,1}}}}, to_apply=%add
}}
"""
