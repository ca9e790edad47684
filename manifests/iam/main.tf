# The policies beside this file, with the cluster's names put in. Attach the ones that are used to Tandem's role.

variable "cluster" {
  type        = string
  description = "The cluster's name, as the tags k8s.io/cluster-autoscaler/<cluster> and kubernetes.io/cluster/<cluster> have it."
}

variable "node_role_arn" {
  type        = string
  default     = null
  description = "The role of node pools' machines; no policy for node pools without it."
}

variable "queue_arn" {
  type        = string
  default     = null
  description = "The queue of interruption notices; no policy for it without one."
}

locals {
  names = {
    CLUSTER       = var.cluster
    NODE_ROLE_ARN = coalesce(var.node_role_arn, "none")
    QUEUE_ARN     = coalesce(var.queue_arn, "none")
  }
  wanted = {
    groups       = true
    pools        = var.node_role_arn != null
    interruption = var.queue_arn != null
  }
  policies = {
    for name, wanted in local.wanted : name => replace(replace(replace(
      file("${path.module}/${name}.json"),
      "CLUSTER", local.names.CLUSTER),
      "NODE_ROLE_ARN", local.names.NODE_ROLE_ARN),
    "QUEUE_ARN", local.names.QUEUE_ARN)
    if wanted
  }
}

resource "aws_iam_policy" "tandem" {
  for_each = local.policies
  name     = "tandem-${each.key}-${var.cluster}"
  policy   = each.value
}

output "policy_arns" {
  value = { for name, policy in aws_iam_policy.tandem : name => policy.arn }
}
