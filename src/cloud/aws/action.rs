//! The calls that Tandem makes, by the names that permissions have.

/// A service of AWS that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Auto Scaling groups.
    AutoScaling,
    /// Machines, their types, networks and images.
    Ec2,
    /// Clusters and managed node groups.
    Eks,
    /// Instance profiles.
    Iam,
    /// On-demand prices.
    Pricing,
    /// Queues of interruption notices.
    Sqs,
    /// Parameters that name images.
    Ssm,
    /// Credentials.
    Sts,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::AutoScaling, Self::Ec2, Self::Eks, Self::Iam, Self::Pricing, Self::Sqs, Self::Ssm, Self::Sts];

    /// The name in signatures, permissions and `[ServiceOverride]`, which is also the first part of the host's.
    pub fn name(self) -> &'static str {
        match self {
            Self::AutoScaling => "autoscaling",
            Self::Ec2 => "ec2",
            Self::Eks => "eks",
            Self::Iam => "iam",
            Self::Pricing => "pricing",
            Self::Sqs => "sqs",
            Self::Ssm => "ssm",
            Self::Sts => "sts",
        }
    }

    /// The end of the variable `AWS_ENDPOINT_URL_…` (AWS SDKs: service-specific endpoints).
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::AutoScaling => "AUTO_SCALING",
            Self::Ec2 => "EC2",
            Self::Eks => "EKS",
            Self::Iam => "IAM",
            Self::Pricing => "PRICING",
            Self::Sqs => "SQS",
            Self::Ssm => "SSM",
            Self::Sts => "STS",
        }
    }

    /// The version of a query API; what stands before the action in `X-Amz-Target` of a JSON one.
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::AutoScaling => Protocol::Query("2011-01-01"),
            Self::Ec2 => Protocol::Query("2016-11-15"),
            Self::Iam => Protocol::Query("2010-05-08"),
            Self::Sts => Protocol::Query("2011-06-15"),
            Self::Sqs => Protocol::Json { target: "AmazonSQS", content_type: "application/x-amz-json-1.0" },
            Self::Ssm => Protocol::Json { target: "AmazonSSM", content_type: "application/x-amz-json-1.1" },
            Self::Pricing => {
                Protocol::Json { target: "AWSPriceListService", content_type: "application/x-amz-json-1.1" }
            }
            Self::Eks => Protocol::Rest,
        }
    }
}

/// How a service is spoken to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    /// A form with `Action` and `Version`, answered in XML.
    Query(&'static str),
    /// JSON both ways, the action in `X-Amz-Target`.
    Json { target: &'static str, content_type: &'static str },
    /// Paths, answered in JSON.
    Rest,
}

/// A call.
#[derive(Debug, PartialEq, Eq)]
pub struct Action {
    /// Who answers it.
    pub service: Service,
    /// Its name.
    pub name: &'static str,
    /// Whether it may be sent again when its answer was lost: reads, what sets an absolute value, what has a token.
    pub repeatable: bool,
}

impl Action {
    /// The name of the permission, `ec2:DescribeInstances` say.
    pub fn permission(&self) -> String {
        format!("{}:{}", self.service.name(), self.name)
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $constant:ident = $service:ident $name:literal $($once:ident)?;)+) => {
        $($(#[$doc])* pub const $constant: Action = Action {
            service: Service::$service,
            name: $name,
            repeatable: actions!(@repeatable $($once)?),
        };)+

        /// Every call that is made, as `manifests/iam/` allows them.
        pub const ACTIONS: &[&Action] = &[$(&$constant),+];
    };
    (@repeatable) => { true };
    (@repeatable once) => { false };
}

actions! {
    /// Groups, with their sizes, instances and tags.
    DESCRIBE_AUTO_SCALING_GROUPS = AutoScaling "DescribeAutoScalingGroups";
    /// What a group of the old kind launches.
    DESCRIBE_LAUNCH_CONFIGURATIONS = AutoScaling "DescribeLaunchConfigurations";
    /// Why a group could not launch.
    DESCRIBE_SCALING_ACTIVITIES = AutoScaling "DescribeScalingActivities";
    /// Sets a group's size.
    SET_DESIRED_CAPACITY = AutoScaling "SetDesiredCapacity";
    /// Ends one machine of a group and lowers the group's size by it.
    TERMINATE_INSTANCE_IN_GROUP = AutoScaling "TerminateInstanceInAutoScalingGroup" once;
    /// Takes a machine that is taken back out of its group, which gets another.
    DETACH_INSTANCES = AutoScaling "DetachInstances" once;
    /// Lets a machine that waits in a hook end.
    COMPLETE_LIFECYCLE_ACTION = AutoScaling "CompleteLifecycleAction";
    /// Lets a machine wait longer in a hook.
    RECORD_LIFECYCLE_ACTION_HEARTBEAT = AutoScaling "RecordLifecycleActionHeartbeat";
    /// Launches machines of a node pool.
    CREATE_FLEET = Ec2 "CreateFleet";
    /// What a node pool's machines are launched from.
    CREATE_LAUNCH_TEMPLATE = Ec2 "CreateLaunchTemplate";
    /// Removes a launch template that nothing uses.
    DELETE_LAUNCH_TEMPLATE = Ec2 "DeleteLaunchTemplate";
    /// Images.
    DESCRIBE_IMAGES = Ec2 "DescribeImages";
    /// Machines.
    DESCRIBE_INSTANCES = Ec2 "DescribeInstances";
    /// Where an instance type is to be had.
    DESCRIBE_INSTANCE_TYPE_OFFERINGS = Ec2 "DescribeInstanceTypeOfferings";
    /// What instance types have.
    DESCRIBE_INSTANCE_TYPES = Ec2 "DescribeInstanceTypes";
    /// Launch templates by name.
    DESCRIBE_LAUNCH_TEMPLATES = Ec2 "DescribeLaunchTemplates";
    /// What a launch template launches.
    DESCRIBE_LAUNCH_TEMPLATE_VERSIONS = Ec2 "DescribeLaunchTemplateVersions";
    /// Security groups.
    DESCRIBE_SECURITY_GROUPS = Ec2 "DescribeSecurityGroups";
    /// What spot capacity costs.
    DESCRIBE_SPOT_PRICE_HISTORY = Ec2 "DescribeSpotPriceHistory";
    /// Placement groups.
    DESCRIBE_PLACEMENT_GROUPS = Ec2 "DescribePlacementGroups";
    /// Subnets.
    DESCRIBE_SUBNETS = Ec2 "DescribeSubnets";
    /// Instance types that meet a mixed instances policy's requirements.
    GET_INSTANCE_TYPES = Ec2 "GetInstanceTypesFromInstanceRequirements";
    /// Ends machines of a node pool.
    TERMINATE_INSTANCES = Ec2 "TerminateInstances";
    /// Labels and taints of a managed node group.
    DESCRIBE_NODEGROUP = Eks "DescribeNodegroup";
    /// How a cluster is reached.
    DESCRIBE_CLUSTER = Eks "DescribeCluster";
    /// Puts a role into an instance profile.
    ADD_ROLE_TO_INSTANCE_PROFILE = Iam "AddRoleToInstanceProfile";
    /// Makes an instance profile for the role of a node class.
    CREATE_INSTANCE_PROFILE = Iam "CreateInstanceProfile";
    /// Removes the instance profile of a node class that is no more.
    DELETE_INSTANCE_PROFILE = Iam "DeleteInstanceProfile";
    /// The role that an instance profile gives.
    GET_INSTANCE_PROFILE = Iam "GetInstanceProfile";
    /// Takes the role out of an instance profile that is to go.
    REMOVE_ROLE_FROM_INSTANCE_PROFILE = Iam "RemoveRoleFromInstanceProfile";
    /// On-demand prices.
    GET_PRODUCTS = Pricing "GetProducts";
    /// Removes a notice that was dealt with.
    DELETE_MESSAGE = Sqs "DeleteMessage";
    /// The address of a queue by its name.
    GET_QUEUE_URL = Sqs "GetQueueUrl";
    /// Waits for notices.
    RECEIVE_MESSAGE = Sqs "ReceiveMessage";
    /// The image that an alias stands for.
    GET_PARAMETER = Ssm "GetParameter";
}
