//! `cargo test ... 2>&1 | e2e_table`: the table of the end-to-end scenarios. Fails unless each was
//! good in every column, or gives a reason why it does not run there.

use std::process::ExitCode;

use roundel_tests::optional::reason_of_skip;
use roundel_tests::table::Table;

fn main() -> ExitCode {
    let printed = match std::io::read_to_string(std::io::stdin()) {
        Ok(printed) => printed,
        Err(error) => {
            eprintln!("e2e_table: standard input: {error}");
            return ExitCode::FAILURE;
        }
    };
    let table = Table::read(&printed, reason_of_skip);
    print!("{table}");
    match table.fault() {
        None => ExitCode::SUCCESS,
        Some(fault) => {
            eprintln!("e2e_table: {fault}");
            ExitCode::FAILURE
        }
    }
}
