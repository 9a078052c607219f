"""Compiles the GPU's kernel for an H100, on any machine: registers, spills, instructions, a bound.

    pip install -e ".[gpu-compile]"
    python benchmarks/gpu_compile.py [--update]

For the shapes of benchmarks/simulate.py, by the backend of Pallas that goes with JAX's version.
Instructions are those of the time loop for one request in the 32 lanes of a warp. The bound is
what an H100 could do if it did nothing but issue these: an estimate, as no GPU is asked. Spills, a
second kernel, or more than 1.1 times the instructions in gpu_compile.json, which --update writes,
are an error.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

PARSER = argparse.ArgumentParser(description=__doc__.splitlines()[0])
PARSER.add_argument("--update", action="store_true", help="write what is found to the record")
ARGUMENTS = PARSER.parse_args()
FOLDER, DUMP = pathlib.Path(__file__).parent, pathlib.Path(tempfile.mkdtemp())
RECORD = FOLDER / "gpu_compile.json"
# Before JAX starts: versions of a driver that is not there are not checked, dumps hold the PTX, and
# it looks for NVIDIA's tools in PATH.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": f"--xla_dump_to={DUMP}",
    "MOSAIC_GPU_DUMP_TO": str(DUMP),
    "PATH": os.pathsep.join(
        [
            *(str(p) for f in sys.path for p in pathlib.Path(f).glob("nvidia/*/bin")),
            os.environ["PATH"],
        ]
    ),
}

import jax
import jax.experimental.topologies
import numpy as np

from beta_jax.simulator.engine import BlockShape, Kernel
from beta_jax.simulator.kernels import gpu
from beta_jax.simulator.layout import Launch
from beta_jax.types import PUBLISHED_RULES

SHAPES = [(4, 8, 48), (16, 1, 48), (16, 4, 48), (32, 2, 72), (64, 1, 48)]
WARP, NUM_BLOCKS, NUM_REQUESTS = 32, 512, 10_000
# An H100 SXM at its boost clock: a scheduler issues an instruction of a warp each cycle, one that
# its 16 lanes of integer units work on every other cycle.
PROCESSORS, SCHEDULERS, CLOCK_HZ = 132, 4, 1.755e9
INTEGER = (
    "IADD",
    "IMAD",
    "ISETP",
    "IMNMX",
    "VI",
    "LEA",
    "LOP",
    "PLOP",
    "SEL",
    "SHF",
    "PRMT",
    "R2P",
)


def launch(groups: int, models: int) -> Launch:
    """The shapes and types of its arrays."""
    int32, int64 = np.int32, np.int64
    requests, blocks, lanes = (NUM_REQUESTS,), (NUM_BLOCKS,), (gpu.LANES,)
    rows = (models + 1,)
    types = {
        "arrival": (requests, int64),
        "model": (requests, int32),
        **dict.fromkeys(
            ("offset", "num_requests", "count_from", "count_to", "row", "table"), (blocks, int32)
        ),
        **dict.fromkeys(("first", "request_overhead"), (blocks, int64)),
        "hosted": ((*blocks, *rows, -(-groups // 32), *lanes), int32),
        "config": ((*blocks, groups, *lanes), int32),
        "deadline": ((*blocks, *rows, *lanes), int64),
    }
    return Launch(**types, latency=None)


def compile_for(
    shape: tuple[int, int, int], sharding: jax.sharding.Sharding
) -> tuple[str, collections.Counter]:
    """PTX, and what the compiled program runs one after the other."""
    groups, stages, models = shape
    costs = (1, models + 1, 1, max(stages, 2)), np.int64
    arrays = launch(groups, models)._replace(latency=costs)
    arrays = arrays._replace(
        **{
            name: jax.ShapeDtypeStruct(*pair, sharding=sharding)
            for name, pair in arrays._asdict().items()
            if pair is not None
        }
    )
    for file in DUMP.iterdir():
        file.unlink()
    block_shape = BlockShape(Kernel.GPU, PUBLISHED_RULES.rule, stages, 0)

    def program(launch: Launch) -> gpu.Written:
        return gpu.run(block_shape, launch, longest=NUM_REQUESTS, num_rows=0, interpret=False)

    jitted = jax.jit(program, out_shardings=sharding)
    compiled = jitted.trace(arrays).lower().compile()
    entry = compiled.as_text().split("ENTRY")[1]
    kernels = collections.Counter(re.findall(r" (fusion|custom-call|copy|while)\(", entry))
    texts = [file.read_text() for file in DUMP.glob("*.ptx")]
    (ptx,) = [text for text in texts if ".entry" in text and gpu.NAME in text]
    return ptx, kernels


def run(command: list) -> subprocess.CompletedProcess:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f'{command[0]} is missing: pip install -e ".[gpu-compile]"')
    if done.returncode:
        sys.exit(done.stderr or done.stdout)
    return done


def assemble(ptx: str) -> tuple[int, int, list[str]]:
    """Registers of a thread, bytes that it spills, and the instructions of the time loop."""
    source, binary = DUMP / "kernel.txt", DUMP / "kernel.cubin"
    source.write_text(ptx)
    target = re.search(r"\.target (\w+)", ptx)[1]
    command = ["ptxas", "-v", f"-arch={target}", "-o", binary, source]
    report = run(command).stderr
    _, _, report = report.partition(f"'{gpu.NAME}")
    registers = int(re.search(r"Used (\d+) registers", report)[1])
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", report)))
    command = ["nvdisasm", "-c", binary]
    text = run(command).stdout
    text = re.search(rf"^\.text\.{gpu.NAME}\w*:\n(.*?)(?:^\t\.section|\Z)", text, re.M | re.S)[1]
    instructions: list[str] = []
    labels = {}
    for line in text.splitlines():
        if label := re.match(r"(\.L\w+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.search(r"/\*[0-9a-f]+\*/\s+(.*?);", line):
            instructions.append(found[1])
    jumps = [
        (labels[target[1]], place)
        for place, instruction in enumerate(instructions)
        if (target := re.search(r"BRA.* `\((\S+)\)", instruction))
    ]
    loops = [(begin, end) for begin, end in jumps if begin < end]
    inner = [one for one in loops if not any(_within(other, one) for other in loops)]
    begin, end = max(inner, key=lambda loop: loop[1] - loop[0])
    return registers, spilled, instructions[begin : end + 1]


def _within(loop: tuple[int, int], other: tuple[int, int]) -> bool:
    return loop != other and other[0] <= loop[0] and loop[1] <= other[1]


def measure(shape: tuple[int, int, int], sharding: jax.sharding.Sharding) -> dict:
    ptx, kernels = compile_for(shape, sharding)
    registers, spilled, loop = assemble(ptx)
    codes = [re.sub(r"^@!?\w+ ", "", instruction).split()[0] for instruction in loop]
    # A request of one warp writes two numbers of 64 bits, for its model.
    requests = sum(code.startswith("STG.E.64") for code in codes) / 2
    integer = sum(code.startswith(INTEGER) for code in codes) / requests
    cycles = max(len(codes) / requests, 2 * integer)
    return {
        "shape": shape,
        "kernels": sum(kernels.values()),
        "registers": registers,
        "spilled_bytes": spilled,
        "instructions": round(len(codes) / requests),
        "integer_instructions": round(integer),
        "bound_gevents_s": round(PROCESSORS * SCHEDULERS * CLOCK_HZ * WARP / cycles / 1e9, 1),
        "lanes_at_once": PROCESSORS * (2**16 // (-(-registers // 8) * 8 * gpu.LANES)) * gpu.LANES,
    }


def worse(row: dict, recorded: dict) -> str:
    """What is worse than recorded, or nothing."""
    if row["instructions"] > 1.1 * recorded["instructions"]:
        return f"{row['shape']}: {recorded['instructions']} instructions are recorded"
    if row["spilled_bytes"] or row["kernels"] != 1:
        return f"{row['shape']}: {row['spilled_bytes']} bytes spilled, {row['kernels']} kernels"
    return ""


def main() -> None:
    topology = jax.experimental.topologies.get_topology_desc(
        platform="cuda",
        target_config=(FOLDER / "h100.txtpb").read_text(),
        topology="1x1x1",
    )
    backend = "Mosaic GPU" if gpu.MOSAIC else "Triton"
    print(f"H100, jax {jax.__version__}, {backend}; the bound is estimated, G request-events per s")
    print(
        f"{'(groups, stages, models)':26}{'registers':>10}{'spilled':>9}{'instructions':>14}"
        f"{'of integers':>13}{'bound':>8}{'lanes at once':>15}"
    )
    rows = []
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
    if gpu.MOSAIC:
        jax.set_mesh(jax.sharding.Mesh(np.array(topology.devices[:1]), ("x",)))
    for shape in SHAPES:
        row = measure(shape, sharding)
        rows.append(row)
        print(
            f"{shape!s:26}{row['registers']:10}{row['spilled_bytes']:9}{row['instructions']:14}"
            f"{row['integer_instructions']:13}{row['bound_gevents_s']:8.1f}"
            f"{row['lanes_at_once']:15,}",
            flush=True,
        )
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if ARGUMENTS.update:
        RECORD.write_text(json.dumps(record | {backend: rows}, indent=1) + "\n")
    else:
        sys.exit("\n".join(filter(None, map(worse, rows, record[backend]))) or 0)


if __name__ == "__main__":
    main()
