//! Joins, and listens.

fn main() -> std::io::Result<()> {
    let worker = roundel_mio::Worker::join()?;
    worker.listen("127.0.0.1:0")?;
    println!("listens");
    Ok(())
}
