//! What the official Python SDK sent (`testdata/capture.py` made the file).

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Captured {
    pub(crate) access_key_id: String,
    pub(crate) access_key_secret: String,
    pub(crate) requests: Vec<SdkRequest>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SdkRequest {
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) authorization: String,
}

pub(crate) fn sdk_requests() -> Captured {
    serde_json::from_str(include_str!("../testdata/sdk-requests.json")).unwrap()
}
