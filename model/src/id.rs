//! Identifiers that the cloud gives out. Their form is the cloud's business: any non-empty text.

use std::fmt;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Wraps the cloud's text.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The cloud's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

id! {
    /// `eni-…`: an elastic network interface.
    EniId
    /// `i-…`: a virtual machine.
    InstanceId
    /// `ecs.g7.4xlarge` and the like.
    InstanceTypeId
    /// `cn-hangzhou` and the like.
    RegionId
    /// `sg-…`: a security group.
    SecurityGroupId
    /// `vsw-…`: a subnet in one zone.
    VSwitchId
    /// `vpc-…`.
    VpcId
    /// `cn-hangzhou-h` and the like.
    ZoneId
}
