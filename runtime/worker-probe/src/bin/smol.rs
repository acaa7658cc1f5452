//! Joins, and listens.

fn main() -> std::io::Result<()> {
    let worker = roundel_smol::Worker::join()?;
    async_io::block_on(worker.listen("127.0.0.1:0"))?;
    println!("listens");
    Ok(())
}
