"""The agent: one asyncio process that takes items from queues to their end.

```
queue -pop-> poller -> admission -slot-> journey: claim -> prepare -> launch -> watch -> report
```

Read `journey.py` first.
"""
