//! A way to a server that can be hurt.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What it does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes on what goes through.
    Passes,
    /// Passes on everything but messages to who has subscribed: the connection looks well.
    EatsMessages,
    /// Ends them, and those that are made.
    Cuts,
}

/// Ends with all its connections when dropped.
pub(crate) struct Proxy {
    pub(crate) address: String,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (mode, mut of) = watch::channel(Mode::Passes);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                if *of.borrow_and_update() == Mode::Cuts {
                    continue;
                }
                let far = TcpStream::connect(&server).await.expect("the server");
                connections.spawn(pass(near, far, of.clone()));
            }
        });
        Proxy { address, mode, _tasks: tasks }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn pass(near: TcpStream, far: TcpStream, mode: watch::Receiver<Mode>) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let mut cut = mode.clone();
    let down = async {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = far_read.read(&mut chunk).await {
            let is_message = chunk.starts_with(b"*3\r\n$7\r\nmessage");
            let is_eaten = is_message && *mode.borrow() == Mode::EatsMessages;
            if !is_eaten && near_write.write_all(&chunk[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        _ = tokio::io::copy(&mut near_read, &mut far_write) => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cuts) => {}
    }
}
