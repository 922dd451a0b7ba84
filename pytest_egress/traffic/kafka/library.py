"""The parts of kafka-python that are used here.

Its import warns of `importlib.resources.read_text` on Python 3.11 and 3.12. A test for which warnings are errors would
fail by that.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.protocol import (
        consumer as consumer,
    )
    from kafka.protocol import (
        metadata as metadata,
    )
    from kafka.protocol import (
        producer as producer,
    )
    from kafka.protocol import (
        sasl as sasl,
    )
    from kafka.protocol.api_key import ApiKey as ApiKey
    from kafka.record import MemoryRecords as MemoryRecords
    from kafka.record.default_records import (
        DefaultRecordBatch as DefaultRecordBatch,
    )
    from kafka.record.default_records import (
        DefaultRecordBatchBuilder as DefaultRecordBatchBuilder,
    )
    from kafka.record.util import decode_varint as decode_varint
