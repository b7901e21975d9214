"""The host's engine: turns over RocksDB.

layer                        file              responsibility
admission, turns, replies    engine.py         one queue per instance, one turn at a time
one turn's state             turn.py           overlay, alarm change, sends; becomes one batch
one name's record            instance.py       queue, cached reads, last batch
bringing it to life          activation.py     the object, its `activate` turn, back-off
the first step of a turn     loop.py           a real Task that starts at once; the poison page
turns of the engine's own    system.py         what activation, alarms and messages queue
one batch a turn             commits.py        data, alarm, messages and result together; write stalls
durable before reply         gate.py           WAL sync, output gate
applied once                 results.py        recorded results
repeats of a running call    joined.py         get its outcome
alarms                       alarms.py         due order, retries, parking
messages                     outbox.py         delivery in order, refusals; messages.py has the rows
what failed too often        parked.py         kept, listed, tried again by hand; backoff.py has the schedule
calls that wait in a circle  cycles.py         finds and breaks cycles
now and then                 housekeeping.py   deadlines of waiting calls, eviction, old results, the end
numbers                      stats.py          what the metrics read
whose data it is             volume.py         identity, shards, epochs, grants
disk                         store.py          RocksDB; the only file that imports it
keys                         layout.py         how rows are named
"""
