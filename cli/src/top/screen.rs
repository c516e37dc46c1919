//! The terminal: taken, drawn on, and left as it was, whatever happens.

use std::io::{Stdout, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use tokio::signal::unix::{SignalKind, signal};

/// How late a signal may be noticed.
const LOOK: Duration = Duration::from_millis(50);

/// The terminal, in raw mode and on its other screen until this is dropped.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    ended: Arc<AtomicBool>,
    _restore: Restore,
}

/// What whoever watches wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Redraw,
    Quit,
}

impl Screen {
    /// Takes it. SIGTERM, SIGHUP and SIGINT are wishes to quit from now on, and a panic gives it back before it
    /// is told.
    pub(super) fn open() -> Result<Self> {
        let ended = quit_on_signal()?;
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            told(panic);
        }));
        enable_raw_mode().context("this terminal has no raw mode; try clew top | cat")?;
        let restore = Restore;
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(Self {
            terminal: Terminal::new(CrosstermBackend::new(stdout()))?,
            ended,
            _restore: restore,
        })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.terminal.draw(draw)?;
        Ok(())
    }

    /// Waits for a wish, or for so long.
    pub(super) fn wait(&self, span: Duration) -> Result<Wish> {
        let deadline = Instant::now() + span;
        loop {
            if self.ended.load(Ordering::Acquire) {
                return Ok(Wish::Quit);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Wish::Nothing);
            }
            if event::poll(left.min(LOOK))? {
                match wish_of(&event::read()?) {
                    Wish::Nothing => {}
                    wish => return Ok(wish),
                }
            }
        }
    }
}

fn wish_of(event: &Event) -> Wish {
    match event {
        Event::Resize(..) => Wish::Redraw,
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => Wish::Quit,
                KeyCode::Char('c') if control => Wish::Quit,
                _ => Wish::Nothing,
            }
        }
        _ => Wish::Nothing,
    }
}

/// Gives the terminal back when it goes.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        restore();
    }
}

/// Nobody is left to be told what fails here.
fn restore() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

fn quit_on_signal() -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut terminate, mut hang_up, mut interrupt) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
        )
    };
    std::thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        told.store(true, Ordering::Release);
    })?;
    Ok(ended)
}
