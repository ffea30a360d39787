"""The GraphQL documents that the agent and the SDK send, as W&B's own client words them."""

LAUNCH_PROJECT = "model-registry"
"""Hidden project of every entity's queues and of the agents' runs."""

LEASE_HEADER = "X-Launch-Async-Lease"
"""Names the lease that a request follows from, on services that hand leases out (ours)."""

VIEWER = "query Viewer { viewer { id entity username } }"

RUN_QUEUES = """
query ProjectRunQueues($entity: String!, $projectName: String!) {
  project(entityName: $entity, name: $projectName) { runQueues { id name createdBy access } }
}
"""

CREATE_AGENT = """
mutation createLaunchAgent(
  $entity: String!, $project: String!, $queues: [ID!]!, $hostname: String!,
  $agentConfig: JSONString, $version: String
) {
  createLaunchAgent(input: {
    entityName: $entity, projectName: $project, runQueues: $queues, hostname: $hostname,
    agentConfig: $agentConfig, version: $version
  }) { launchAgentId }
}
"""

AGENT = """
query LaunchAgent($agentId: ID!) { launchAgent(id: $agentId) { id name stopPolling } }
"""

UPDATE_AGENT = """
mutation updateLaunchAgent($agentId: ID!, $agentStatus: String) {
  updateLaunchAgent(input: { launchAgentId: $agentId, agentStatus: $agentStatus }) { success }
}
"""

POP_FIELDS = """
query PopFields { __type(name: "PopFromRunQueuePayload") { fields { name } } }
"""
"""Whether pops have a `lease`: those of our service do, those of W&B's do not."""

ACK = """
mutation ackRunQueueItem($itemId: ID!, $runId: String!) {
  ackRunQueueItem(input: { runQueueItemId: $itemId, runName: $runId }) { success }
}
"""

FAIL = """
mutation failRunQueueItem(
  $runQueueItemId: ID!, $message: String!, $stage: String!, $filePaths: [String!]
) {
  failRunQueueItem(input: {
    runQueueItemId: $runQueueItemId, message: $message, stage: $stage, filePaths: $filePaths
  }) { success }
}
"""

STOP_RUN = """
mutation StopRun($id: ID!) { stopRun(input: { id: $id }) { success } }
"""

UPSERT_RUN = """
mutation UpsertBucket(
  $name: String, $project: String, $entity: String, $jobType: String, $displayName: String
) {
  upsertBucket(input: {
    name: $name, modelName: $project, entityName: $entity, jobType: $jobType,
    displayName: $displayName
  }) { bucket { id name } inserted }
}
"""

CREATE_RUN_FILES = """
mutation CreateRunFiles(
  $entity: String!, $project: String!, $run: String!, $files: [String!]!
) {
  createRunFiles(input: {
    entityName: $entity, projectName: $project, runName: $run, files: $files
  }) { runID uploadHeaders files { name uploadUrl } }
}
"""

ARTIFACT_BY_NAME = """
query ArtifactMembershipByName($entity: String!, $project: String!, $name: String!) {
  project(name: $project, entityName: $entity) {
    artifactCollectionMembership(name: $name) {
      artifact { id state artifactType { name } currentManifest { file { directUrl } } }
    }
  }
}
"""

ARTIFACT_BY_ID = """
query ArtifactByID($id: ID!) {
  artifact(id: $id) {
    id state artifactType { name } artifactSequence { name project { name entity { name } } }
    currentManifest { file { directUrl } }
  }
}
"""


def look_up_runs(count: int) -> str:
    """One query for `count` runs; variables `e0 p0 r0 e1 …`, answers `q0 q1 …`."""
    variables = ", ".join(
        f"$e{index}: String!, $p{index}: String!, $r{index}: String!" for index in range(count)
    )
    fields = "\n".join(
        f"  q{index}: project(entityName: $e{index}, name: $p{index}) "
        f"{{ run(name: $r{index}) {{ state stopped }} }}"
        for index in range(count)
    )
    return f"query LaunchRuns({variables}) {{\n{fields}\n}}"


def pop_from_queues(count: int, *, leased: bool) -> str:
    """One mutation of `count` pops, done in this order; variables `q0 q1 …`, answers `p0 p1 …`."""
    names = ", ".join(f"$q{index}: String!" for index in range(count))
    asked = "runQueueItemId runSpec lease" if leased else "runQueueItemId runSpec"
    fields = "\n".join(
        f"  p{index}: popFromRunQueue(input: {{ entityName: $entity, projectName: $project, "
        f"queueName: $q{index}, launchAgentId: $launchAgentId }}) {{ {asked} }}"
        for index in range(count)
    )
    return (
        "mutation popFromRunQueue("
        f"$entity: String!, $project: String!, $launchAgentId: ID, {names}) {{\n{fields}\n}}"
    )
