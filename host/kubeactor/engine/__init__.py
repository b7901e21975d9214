"""The host's engine: turns over RocksDB.

layer                        file           responsibility
admission, turns, replies    engine.py      one queue per instance, one turn at a time
one turn's state             turn.py        overlay, alarm change, sends; becomes one batch
one name's record            instance.py    queue, cached reads, last batch
durable before reply         gate.py        WAL sync, output gate
applied once                 results.py     recorded results
alarms                       alarms.py      due order, retries, parking
messages                     outbox.py      delivery in order, refusals, parking
calls that wait in a circle  cycles.py      finds and breaks cycles
disk                         store.py       RocksDB; the only file that imports it
keys                         layout.py      how rows are named
"""
