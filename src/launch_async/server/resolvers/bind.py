"""Every resolver that the schema is joined with.

Names are snake_case on our side: `runQueueItemId` of an input arrives as `run_queue_item_id`, and
a field `createdAt` without a resolver of its own reads `created_at` of its parent.
"""

from ariadne import SchemaBindable

from launch_async.server.resolvers import (
    agents,
    artifact_changes,
    artifact_collections,
    artifact_uploads,
    artifacts,
    audit,
    collection_changes,
    item_changes,
    items,
    older,
    people_changes,
    projects,
    queues,
    rewinds,
    run_changes,
    run_files,
    run_key_gate,
    runs,
    scalars,
    viewer,
)

BINDABLES: list[SchemaBindable] = [
    *scalars.BINDABLES,
    *viewer.BINDABLES,
    *projects.BINDABLES,
    *runs.BINDABLES,
    *run_changes.BINDABLES,
    *run_files.BINDABLES,
    *queues.BINDABLES,
    *items.BINDABLES,
    *item_changes.BINDABLES,
    *agents.BINDABLES,
    *artifacts.BINDABLES,
    *artifact_collections.BINDABLES,
    *artifact_changes.BINDABLES,
    *artifact_uploads.BINDABLES,
    *collection_changes.BINDABLES,
    *older.BINDABLES,
    *people_changes.BINDABLES,
    *rewinds.BINDABLES,
    *audit.BINDABLES,
    *run_key_gate.BINDABLES,  # the last: it looks at every resolver there is
]
