//! Every reason to say no: its status, and its body in both dialects.
//!
//! Clients of the hosted service match parts of its messages, so the key phrases are the hosted ones word for word,
//! typing errors included.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ocellus_engine::{Error as EngineError, MediaFault};
use serde_json::json;

/// A reason to refuse a request. Handlers return it with `?`; [`crate::envelope`] writes the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// No key came, but one is needed.
    KeyMissing,
    /// The key is none of ours.
    KeyWrong,
    /// A web page of a site that may not call this server.
    OriginForbidden,
    /// An asynchronous call, which only other models of the hosted service answer.
    AsynchronousCall,
    /// No such route.
    PathUnknown,
    /// The route has other methods.
    MethodWrong {
        /// The request's method.
        method: String,
    },
    /// More bytes than a request may have.
    BodyTooLarge {
        /// The bound in bytes.
        limit_bytes: usize,
    },
    /// The client stopped sending in the middle of the body.
    BodyTimedOut,
    /// Not a JSON object.
    BodyMalformed,
    /// No `model`.
    ModelMissing,
    /// A name the loaded model doesn't answer to.
    ModelUnknown {
        /// The name asked for.
        name: String,
    },
    /// No `input`, which only the native dialect has.
    InputMissing,
    /// No `messages`.
    MessagesMissing,
    /// An empty list of `messages`.
    MessagesEmpty,
    /// A conversation without a user's turn.
    NoUserMessage,
    /// A tool's result that nobody asked for.
    ToolMessageUnasked,
    /// A value of another JSON type.
    WrongType {
        /// The parameter.
        name: String,
        /// The type it should have, as the hosted service names it.
        expected: &'static str,
    },
    /// A value outside its range, or one that makes no sense; the text says which.
    BadValue {
        /// The whole message.
        message: String,
    },
    /// Something the hosted service has and this server does not have yet.
    NotSupported {
        /// The parameter, and what of it.
        what: String,
    },
    /// Neither a URL nor a data URI that can be followed.
    UrlInvalid,
    /// Base64 text over its bound.
    DataUriTooLarge {
        /// The bound, in characters of base64 text.
        limit: usize,
    },
    /// A file behind a URL over its bound, or all files of a request together.
    MediaTooLarge,
    /// More pictures than a request may have.
    TooManyMedia {
        /// How many came.
        count: usize,
        /// How many may come.
        limit: usize,
    },
    /// Fetching is switched off.
    FetchOff,
    /// The address is not one this server fetches from.
    FetchForbidden,
    /// The file can't be had.
    DownloadFailed,
    /// The file took too long.
    DownloadTimedOut,
    /// The certificate for an upload is not good, or not for this file.
    UploadForbidden {
        /// Why, in a sentence.
        reason: &'static str,
    },
    /// Another file was uploaded under the same name.
    UploadExists,
    /// No room for another upload.
    UploadsFull,
    /// The file is of a known format but broken.
    ImageBroken,
    /// The file is of no known format.
    ImageFormatUnknown,
    /// The picture is too small or too long.
    ImageSides {
        /// Pixels of the upright picture.
        height: usize,
        /// Pixels of the upright picture.
        width: usize,
    },
    /// The picture would need too much memory.
    ImageTooManyPixels,
    /// Not enough or too many frames.
    FrameCount,
    /// More tokens than the context holds.
    PromptTooLong {
        /// The largest prompt in tokens.
        limit: usize,
    },
    /// Too many wait already.
    Busy,
    /// Our fault.
    EngineFailure,
    /// The model is not loaded yet.
    NotReady,
}

/// Which of the two protocols a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The OpenAI-compatible one.
    Compatible,
    /// DashScope's own.
    Native,
}

impl Dialect {
    /// The dialect of a path; paths of neither answer in the compatible one.
    pub fn of_path(path: &str) -> Self {
        if path == "/api" || path.starts_with("/api/") { Self::Native } else { Self::Compatible }
    }
}

/// What a refusal says besides its message.
struct Row {
    status: StatusCode,
    /// `error.code` of the compatible body.
    code: Option<&'static str>,
    /// `error.type` of the compatible body.
    kind: &'static str,
    /// `code` of the native body.
    native_code: &'static str,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The JSON body in a dialect.
    pub fn body(&self, dialect: Dialect, request_id: &str) -> serde_json::Value {
        let row = self.row();
        let message = self.message(dialect);
        match dialect {
            Dialect::Compatible => json!({
                "error": {"message": message, "type": row.kind, "param": null, "code": row.code},
                "request_id": request_id,
            }),
            Dialect::Native => json!({"code": row.native_code, "message": message, "request_id": request_id}),
        }
    }

    /// The whole answer in a dialect.
    pub(crate) fn answer(&self, dialect: Dialect, request_id: &str) -> Response {
        let mut response = Response::new(Body::from(self.body(dialect, request_id).to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            // The clients wait this long before they try again.
            Self::Busy | Self::NotReady => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // The clients would send the same request twice more.
            Self::EngineFailure => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            // Part of the body is still on its way; the connection can't carry another request.
            Self::BodyTooLarge { .. } | Self::BodyTimedOut => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }

    /// The table of statuses and codes.
    fn row(&self) -> Row {
        const INVALID: &str = "invalid_request_error";
        let row = |status, code, kind, native_code| Row { status, code, kind, native_code };
        let parameter =
            row(StatusCode::BAD_REQUEST, Some("invalid_parameter_error"), INVALID, "InvalidParameter");
        match self {
            Self::KeyMissing => row(StatusCode::UNAUTHORIZED, None, INVALID, "InvalidApiKey"),
            Self::KeyWrong => {
                row(StatusCode::UNAUTHORIZED, Some("invalid_api_key"), INVALID, "InvalidApiKey")
            }
            Self::AsynchronousCall | Self::OriginForbidden => {
                row(StatusCode::FORBIDDEN, Some("access_denied"), INVALID, "AccessDenied")
            }
            Self::PathUnknown => row(StatusCode::NOT_FOUND, Some("not_found"), INVALID, "NotFound"),
            Self::MethodWrong { .. } => {
                row(StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"), INVALID, "MethodNotAllowed")
            }
            Self::BodyTooLarge { .. } => {
                row(StatusCode::PAYLOAD_TOO_LARGE, Some("request_too_large"), INVALID, "RequestTooLarge")
            }
            Self::BodyTimedOut => {
                row(StatusCode::REQUEST_TIMEOUT, Some("request_timeout"), INVALID, "RequestTimeOut")
            }
            Self::ModelMissing => row(StatusCode::BAD_REQUEST, None, INVALID, "BadRequest.EmptyModel"),
            Self::ModelUnknown { .. } => {
                row(StatusCode::NOT_FOUND, Some("model_not_found"), INVALID, "ModelNotFound")
            }
            Self::InputMissing => Row { native_code: "BadRequest.EmptyInput", ..parameter },
            Self::FetchOff | Self::FetchForbidden | Self::DownloadFailed | Self::DownloadTimedOut => {
                Row { native_code: "InvalidParameter.DataInspection", ..parameter }
            }
            Self::UploadForbidden { .. } => {
                row(StatusCode::FORBIDDEN, Some("access_denied"), INVALID, "AccessDenied")
            }
            Self::UploadExists => {
                row(StatusCode::CONFLICT, Some("file_already_exists"), INVALID, "FileAlreadyExists")
            }
            Self::UploadsFull => row(
                StatusCode::TOO_MANY_REQUESTS,
                Some("insufficient_quota"),
                "insufficient_quota",
                "Throttling.AllocationQuota",
            ),
            Self::Busy => row(
                StatusCode::TOO_MANY_REQUESTS,
                Some("limit_requests"),
                "limit_requests",
                "Throttling.RateQuota",
            ),
            Self::EngineFailure => row(
                StatusCode::INTERNAL_SERVER_ERROR,
                Some("internal_error"),
                "server_error",
                "InternalError",
            ),
            Self::NotReady => row(StatusCode::SERVICE_UNAVAILABLE, None, "server_error", "ModelUnavailable"),
            Self::BodyMalformed
            | Self::MessagesMissing
            | Self::MessagesEmpty
            | Self::NoUserMessage
            | Self::ToolMessageUnasked
            | Self::WrongType { .. }
            | Self::BadValue { .. }
            | Self::NotSupported { .. }
            | Self::UrlInvalid
            | Self::DataUriTooLarge { .. }
            | Self::MediaTooLarge
            | Self::TooManyMedia { .. }
            | Self::ImageBroken
            | Self::ImageFormatUnknown
            | Self::ImageSides { .. }
            | Self::ImageTooManyPixels
            | Self::FrameCount
            | Self::PromptTooLong { .. } => parameter,
        }
    }

    /// What the client reads.
    fn message(&self, dialect: Dialect) -> String {
        let native = dialect == Dialect::Native;
        match self {
            Self::KeyMissing if native => "No API-key provided.".into(),
            Self::KeyMissing => {
                "You didn't provide an API key. You need to provide your API key in an Authorization \
                                 header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
                    .into()
            }
            Self::KeyWrong if native => "Invalid API-key provided.".into(),
            Self::KeyWrong => "Incorrect API key provided.".into(),
            Self::OriginForbidden => {
                "Web pages of this site may not call this server; its operator can allow \
                                      them with --allow-origin."
                    .into()
            }
            Self::AsynchronousCall => "Current user api does not support asynchronous calls.".into(),
            Self::PathUnknown => "There is no such path on this server.".into(),
            Self::MethodWrong { method } => format!("Request method '{method}' is not supported."),
            Self::BodyTooLarge { limit_bytes } => {
                format!("The request body is too large: at most {limit_bytes} bytes are accepted.")
            }
            Self::BodyTimedOut => "The request body did not arrive in time.".into(),
            Self::BodyMalformed => "Required body invalid, please check the request body format.".into(),
            Self::ModelMissing => "you must provide a model parameter.".into(),
            Self::ModelUnknown { .. } if native => "Model not exist.".into(),
            Self::ModelUnknown { name } => {
                format!("The model `{name}` does not exist or you do not have access to it.")
            }
            Self::InputMissing => "Required input parameter missing from request.".into(),
            Self::MessagesMissing => {
                "Either \"prompt\" or \"messages\" must exist and cannot both be none.".into()
            }
            Self::MessagesEmpty => "[] is too short - 'messages'".into(),
            Self::NoUserMessage => "The input messages do not contain elements with the role of user.".into(),
            Self::ToolMessageUnasked => {
                "messages with role \"tool\" must be a response to a preceeding message \
                                         with \"tool_calls\"."
                    .into()
            }
            Self::WrongType { name, expected } => format!("'{name}' must be {expected}"),
            Self::BadValue { message } => message.clone(),
            Self::NotSupported { what } => format!("{what} is not supported by this server yet."),
            Self::UrlInvalid => {
                "The provided URL does not appear to be valid. Ensure it is correctly formatted.".into()
            }
            Self::DataUriTooLarge { limit } => {
                format!("Exceeded limit on max bytes per data-uri item : {limit}")
            }
            Self::MediaTooLarge => "Multimodal file size is too large".into(),
            Self::TooManyMedia { count, limit } => {
                format!("The request has {count} images and videos; at most {limit} are accepted.")
            }
            Self::FetchOff => {
                "Failed to download multimodal content. This server does not fetch URLs; send the file \
                               as a data URI."
                    .into()
            }
            Self::FetchForbidden => {
                "Failed to download multimodal content. The URL's address is not one this server \
                                     may fetch from; send the file as a data URI."
                    .into()
            }
            Self::DownloadFailed => "Failed to download multimodal content.".into(),
            Self::DownloadTimedOut => {
                "Download the media resource timed out during the data inspection process.".into()
            }
            Self::UploadForbidden { reason } => format!("The upload is not allowed. {reason}"),
            Self::UploadExists => "Another file was uploaded under this name already.".into(),
            Self::UploadsFull => "There is no room for more uploaded files, please try again later.".into(),
            Self::ImageBroken => "Failed to decode the image during the data inspection.".into(),
            Self::ImageFormatUnknown => "The file format is illegal and cannot be opened.".into(),
            Self::ImageSides { height, width } => format!(
                "The image length and width do not meet the model restrictions. [height:{height} or width:{width} \
                 must be larger than 10]{}",
                // The hosted service uses the same phrase for both rules; the second sentence says which one it was.
                if (*height).min(*width) > 10 { " The aspect ratio must not exceed 200." } else { "" }
            ),
            Self::ImageTooManyPixels => {
                "Multimodal file size is too large: the image has too many pixels.".into()
            }
            Self::FrameCount => "the range of sequence images shoule be (4, 512)".into(),
            Self::PromptTooLong { limit } => format!("Range of input length should be [1, {limit}]"),
            Self::Busy => "Requests rate limit exceeded, please try again later.".into(),
            Self::EngineFailure => "Internal server error.".into(),
            Self::NotReady => "Model is unavailable, please try again later.".into(),
        }
    }
}

impl IntoResponse for Refusal {
    /// A response that carries the refusal itself: only the envelope knows the request's id and dialect.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<&EngineError> for Refusal {
    fn from(error: &EngineError) -> Self {
        match error {
            EngineError::InvalidRequest(message) => Self::BadValue { message: message.clone() },
            EngineError::NoUserMessage => Self::NoUserMessage,
            EngineError::Media { reason, .. } => Self::from(reason),
            EngineError::ContextLength { limit, .. } => Self::PromptTooLong { limit: *limit },
            EngineError::Busy { .. } | EngineError::CacheFull { .. } => Self::Busy,
            EngineError::Tokenizer { .. } | EngineError::Internal(_) => {
                // For the operator's log; the client learns nothing of our insides.
                tracing::error!(%error, "the engine failed");
                Self::EngineFailure
            }
        }
    }
}

impl From<&MediaFault> for Refusal {
    fn from(fault: &MediaFault) -> Self {
        match fault {
            MediaFault::Size { height, width } => Self::ImageSides { height: *height, width: *width },
            MediaFault::UnknownFormat(_) => Self::ImageFormatUnknown,
            MediaFault::Broken(_) => Self::ImageBroken,
            MediaFault::TooLarge(_) => Self::ImageTooManyPixels,
            MediaFault::Clip(message) => Self::BadValue { message: message.clone() },
        }
    }
}
