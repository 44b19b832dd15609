//! Where the API is.

use model::RegionId;
use reqwest::Url;

use crate::Product;

/// What the environment says about endpoints; an empty text says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// `ECS_ENDPOINT`: a URL or a host.
    pub ecs: Option<String>,
    /// `VPC_ENDPOINT`: a URL or a host.
    pub vpc: Option<String>,
    /// `ALICLOUD_CLIENT_SCHEME`: `http` or `https` (any case), for what has none; https if `None`.
    pub scheme: Option<String>,
    /// `ALICLOUD_ENDPOINT_TYPE`: `vpc` (inside a VPC, without the Internet) or `public`; vpc if
    /// `None`.
    pub kind: Option<String>,
}

/// The endpoints of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    ecs: Url,
    vpc: Url,
}

/// An endpoint that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value:?} is not {expected}")]
pub struct EndpointError {
    /// The variable.
    pub key: &'static str,
    /// What it says.
    pub value: String,
    /// What it may say.
    pub expected: &'static str,
}

impl Endpoints {
    /// The endpoints of `region`, as `options` say.
    pub fn new(region: &RegionId, options: &EndpointOptions) -> Result<Self, EndpointError> {
        let scheme = scheme(options)?;
        let infix = infix(options)?;
        let url = |key, said: Option<&String>, product: &str| {
            let default = || format!("{product}{infix}.{region}.aliyuncs.com");
            parse(key, scheme, &said_something(said).map_or_else(default, str::to_owned))
        };
        Ok(Self {
            ecs: url("ECS_ENDPOINT", options.ecs.as_ref(), "ecs")?,
            vpc: url("VPC_ENDPOINT", options.vpc.as_ref(), "vpc")?,
        })
    }

    pub(crate) const fn of(&self, product: Product) -> &Url {
        match product {
            Product::Ecs => &self.ecs,
            Product::Vpc => &self.vpc,
        }
    }

    pub(crate) fn any_tls(&self) -> bool {
        [&self.ecs, &self.vpc].iter().any(|url| url.scheme() == "https")
    }
}

fn said_something(text: Option<&String>) -> Option<&str> {
    text.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn scheme(options: &EndpointOptions) -> Result<&'static str, EndpointError> {
    let Some(said) = said_something(options.scheme.as_ref()) else { return Ok("https") };
    match said.to_ascii_lowercase().as_str() {
        "http" => Ok("http"),
        "https" => Ok("https"),
        _ => Err(EndpointError {
            key: "ALICLOUD_CLIENT_SCHEME",
            value: said.to_owned(),
            expected: "http or https",
        }),
    }
}

fn infix(options: &EndpointOptions) -> Result<&'static str, EndpointError> {
    let Some(said) = said_something(options.kind.as_ref()) else { return Ok("-vpc") };
    match said.to_ascii_lowercase().as_str() {
        "vpc" => Ok("-vpc"),
        "public" => Ok(""),
        _ => Err(EndpointError {
            key: "ALICLOUD_ENDPOINT_TYPE",
            value: said.to_owned(),
            expected: "vpc or public",
        }),
    }
}

/// A URL with scheme, host and nothing behind its path.
pub(crate) fn parse(key: &'static str, scheme: &str, text: &str) -> Result<Url, EndpointError> {
    let wrong = || EndpointError {
        key,
        value: text.to_owned(),
        expected: "a host, or a URL like https://ecs.example.com:8443",
    };
    let full = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    let url = Url::parse(&full).map_err(|_wrong_url| wrong())?;
    let known = matches!(url.scheme(), "http" | "https");
    let plain = url.username().is_empty() && url.password().is_none();
    let ends = url.query().is_none() && url.fragment().is_none();
    if known && plain && ends && url.has_host() { Ok(url) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(options: &EndpointOptions) -> Result<(String, String), String> {
        let endpoints = Endpoints::new(&RegionId::new("cn-hangzhou"), options);
        let endpoints = endpoints.map_err(|error| error.to_string())?;
        Ok((endpoints.ecs.to_string(), endpoints.vpc.to_string()))
    }

    #[test]
    fn an_endpoint_is_what_the_environment_says_or_the_regions() {
        let none = EndpointOptions::default;
        let some = |text: &str| Some(text.to_owned());
        for (options, ecs, vpc) in [
            (
                none(),
                "https://ecs-vpc.cn-hangzhou.aliyuncs.com/",
                "https://vpc-vpc.cn-hangzhou.aliyuncs.com/",
            ),
            (
                EndpointOptions { kind: some("public"), scheme: some("HTTP"), ..none() },
                "http://ecs.cn-hangzhou.aliyuncs.com/",
                "http://vpc.cn-hangzhou.aliyuncs.com/",
            ),
            (
                EndpointOptions {
                    ecs: some("http://10.0.0.1:8080"),
                    vpc: some("vpc.example.com"),
                    scheme: some(""),
                    ..none()
                },
                "http://10.0.0.1:8080/",
                "https://vpc.example.com/",
            ),
        ] {
            assert_eq!(endpoints(&options), Ok((ecs.to_owned(), vpc.to_owned())));
        }
    }

    #[test]
    fn a_bad_endpoint_names_its_variable() {
        let some = |text: &str| Some(text.to_owned());
        for (options, text) in [
            (
                EndpointOptions { ecs: some("http://"), ..Default::default() },
                "ECS_ENDPOINT: \"http://\"",
            ),
            (
                EndpointOptions { ecs: some("ftp://a"), ..Default::default() },
                "ECS_ENDPOINT: \"ftp://a\"",
            ),
            (
                EndpointOptions { vpc: some("a/?b=c"), ..Default::default() },
                "VPC_ENDPOINT: \"a/?b=c\"",
            ),
            (
                EndpointOptions { scheme: some("gopher"), ..Default::default() },
                "is not http or https",
            ),
            (
                EndpointOptions { kind: some("moon"), ..Default::default() },
                "ALICLOUD_ENDPOINT_TYPE",
            ),
        ] {
            let error = endpoints(&options).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
