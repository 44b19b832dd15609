//! The ECS/VPC OpenAPI and the instance metadata service: sign, limit, retry, and types.
