//! The log of this test's process, as text.

use std::io::{self, Write};
use std::sync::{Mutex, Once};

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static BEGIN: Once = Once::new();

struct LogBuffer;

impl Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what the process logs at the level info.
pub(crate) fn keep_log() {
    BEGIN.call_once(|| {
        let level = tracing_subscriber::filter::LevelFilter::INFO;
        tracing_subscriber::fmt().with_max_level(level).with_writer(|| LogBuffer).init();
    });
}

/// Everything that was logged until now.
pub(crate) fn logged_text() -> String {
    String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned()
}
