"""What the processes of a server don't load."""

from __future__ import annotations

import subprocess
import sys


def test_the_engine_loads_no_pandas_and_a_scorer_of_ones_own_still_may() -> None:
    program = """if True:
        import sys
        from llmobs.server import _keep_pandas_out
        _keep_pandas_out()
        import pyarrow as pa
        from llmobs.analyzer.price import price  # makes an array
        assert pa.array(["a"]).to_pylist() == ["a"]
        assert "pandas" not in sys.modules
        import pandas
        assert pandas.DataFrame({"a": [1]}).shape == (1, 1)
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_receiver_loads_neither_the_store_nor_the_measures() -> None:
    program = """if True:
        import sys
        import llmobs.access, llmobs.analyzer.decode, llmobs.analyzer.receive
        import llmobs.analyzer.log, llmobs.settings
        loaded = {"chdb", "clickhouse_connect", "numba", "scipy", "tokenizers"} & set(sys.modules)
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", program], check=True)
