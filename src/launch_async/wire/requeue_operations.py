"""The GraphQL documents that put items into queues, again or anew, and that warn of one."""

REQUEUE_FIELDS = """
query RequeueFields { __type(name: "RequeueRunQueueItemInput") { inputFields { name } } }
"""

REQUEUE = """
mutation requeueRunQueueItem($itemId: ID!, $resumeCount: Int!) {
  requeueRunQueueItem(input: { runQueueItemId: $itemId, resumeCount: $resumeCount }) {
    runQueueItemId
  }
}
"""
"""For services whose `REQUEUE_FIELDS` has `resumeCount` (ours)."""

PUSH = """
mutation pushToRunQueueByName(
  $entityName: String!, $projectName: String!, $queueName: String!, $runSpec: JSONString!
) {
  pushToRunQueueByName(input: {
    entityName: $entityName, projectName: $projectName, queueName: $queueName, runSpec: $runSpec
  }) { runQueueItemId }
}
"""

WARN = """
mutation updateRunQueueItemWarning($itemId: ID!, $message: String!, $stage: String!) {
  updateRunQueueItemWarning(input: {
    runQueueItemId: $itemId, message: $message, stage: $stage, filePaths: []
  }) { success }
}
"""
