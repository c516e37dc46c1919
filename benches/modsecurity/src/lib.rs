//! libmodsecurity 3 of the system, as far as a measurement needs it.
//!
//! The one crate outside the sensor with `unsafe` in it: it calls C, and nothing but the bench
//! uses it. Declarations after `modsecurity/{modsecurity,rules_set,transaction}.h`.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::ptr::NonNull;

type Log = extern "C" fn(*mut c_void, *const c_void);

#[link(name = "modsecurity")]
unsafe extern "C" {
    fn msc_init() -> *mut c_void;
    fn msc_who_am_i(engine: *mut c_void) -> *const c_char;
    fn msc_set_log_cb(engine: *mut c_void, log: Log);
    fn msc_cleanup(engine: *mut c_void);
    fn msc_create_rules_set() -> *mut c_void;
    fn msc_rules_add(rules: *mut c_void, text: *const c_char, error: *mut *const c_char) -> c_int;
    fn msc_rules_cleanup(rules: *mut c_void) -> c_int;
    fn msc_new_transaction(
        engine: *mut c_void,
        rules: *mut c_void,
        data: *mut c_void,
    ) -> *mut c_void;
    fn msc_process_connection(
        it: *mut c_void,
        client: *const c_char,
        client_port: c_int,
        server: *const c_char,
        server_port: c_int,
    ) -> c_int;
    fn msc_process_uri(
        it: *mut c_void,
        uri: *const c_char,
        method: *const c_char,
        version: *const c_char,
    ) -> c_int;
    fn msc_add_n_request_header(
        it: *mut c_void,
        name: *const c_uchar,
        name_len: usize,
        value: *const c_uchar,
        value_len: usize,
    ) -> c_int;
    fn msc_process_request_headers(it: *mut c_void) -> c_int;
    fn msc_append_request_body(it: *mut c_void, bytes: *const c_uchar, len: usize) -> c_int;
    fn msc_process_request_body(it: *mut c_void) -> c_int;
    fn msc_add_n_response_header(
        it: *mut c_void,
        name: *const c_uchar,
        name_len: usize,
        value: *const c_uchar,
        value_len: usize,
    ) -> c_int;
    fn msc_process_response_headers(
        it: *mut c_void,
        status: c_int,
        protocol: *const c_char,
    ) -> c_int;
    fn msc_process_response_body(it: *mut c_void) -> c_int;
    fn msc_process_logging(it: *mut c_void) -> c_int;
    fn msc_transaction_cleanup(it: *mut c_void);
}

thread_local! {
    /// Lines of the log since the last look.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

extern "C" fn note(_: *mut c_void, line: *const c_void) {
    if line.is_null() {
        return;
    }
    // SAFETY: the library hands over a string of its own for the length of the call.
    let line = unsafe { CStr::from_ptr(line.cast()) };
    let line = line.to_string_lossy().into_owned();
    LINES.with_borrow_mut(|lines| lines.push(line));
}

/// The library with one set of rules.
pub struct ModSecurity {
    engine: NonNull<c_void>,
    rules: NonNull<c_void>,
}

/// What a transaction is made of. Texts must not contain NUL.
pub struct Request<'r> {
    /// The method.
    pub method: &'r CStr,
    /// The target.
    pub target: &'r CStr,
    /// Header lines.
    pub headers: &'r [(String, String)],
    /// The body.
    pub body: &'r [u8],
}

impl ModSecurity {
    /// Loads a configuration.
    ///
    /// # Errors
    ///
    /// What the library says of it.
    pub fn load(configuration: &str) -> Result<Self, String> {
        let text = CString::new(configuration).map_err(|error| error.to_string())?;
        // SAFETY: calls in the order that the headers ask for; the pointers are checked.
        unsafe {
            let engine = NonNull::new(msc_init()).ok_or("msc_init failed")?;
            msc_set_log_cb(engine.as_ptr(), note);
            let rules = NonNull::new(msc_create_rules_set()).ok_or("no rule set")?;
            let mut error = std::ptr::null();
            if msc_rules_add(rules.as_ptr(), text.as_ptr(), &raw mut error) < 0 {
                let said = (!error.is_null()).then(|| CStr::from_ptr(error).to_string_lossy());
                return Err(said.map_or_else(|| "unknown error".to_owned(), Into::into));
            }
            Ok(Self { engine, rules })
        }
    }

    /// Name and version.
    pub fn version(&self) -> String {
        // SAFETY: a string that lives as long as the engine.
        let text = unsafe { CStr::from_ptr(msc_who_am_i(self.engine.as_ptr())) };
        text.to_string_lossy().into_owned()
    }

    /// Takes a request, and an empty answer of HTML, through all phases in a fresh transaction.
    pub fn evaluate(&self, request: &Request<'_>) {
        const HTML: (&str, &str) = ("Content-Type", "text/html");
        // SAFETY: a transaction of this engine and these rules, used by this thread and cleaned up
        // here; lengths are those of the slices.
        unsafe {
            let (engine, rules) = (self.engine.as_ptr(), self.rules.as_ptr());
            let it = msc_new_transaction(engine, rules, std::ptr::null_mut());
            msc_process_connection(it, c"192.0.2.7".as_ptr(), 54_321, c"192.0.2.1".as_ptr(), 80);
            msc_process_uri(
                it,
                request.target.as_ptr(),
                request.method.as_ptr(),
                c"1.1".as_ptr(),
            );
            for (name, value) in request.headers {
                msc_add_n_request_header(
                    it,
                    name.as_ptr(),
                    name.len(),
                    value.as_ptr(),
                    value.len(),
                );
            }
            msc_process_request_headers(it);
            if !request.body.is_empty() {
                msc_append_request_body(it, request.body.as_ptr(), request.body.len());
            }
            msc_process_request_body(it);
            let (name, value) = HTML;
            msc_add_n_response_header(it, name.as_ptr(), name.len(), value.as_ptr(), value.len());
            msc_process_response_headers(it, 200, c"HTTP 1.1".as_ptr());
            msc_process_response_body(it);
            msc_process_logging(it);
            msc_transaction_cleanup(it);
        }
    }

    /// The lines logged on this thread since the last call.
    pub fn take_log(&self) -> Vec<String> {
        LINES.take()
    }
}

impl Drop for ModSecurity {
    fn drop(&mut self) {
        // SAFETY: made by `load`; no transaction is left.
        unsafe {
            msc_rules_cleanup(self.rules.as_ptr());
            msc_cleanup(self.engine.as_ptr());
        }
    }
}
