//! `cargo test ... 2>&1 | e2e_table`: the table of the end-to-end scenarios. Fails unless each was
//! good in every column, or gives a reason why it does not run there. With `ROUNDEL_MATRIX=full` it
//! is no reason that the full matrix was not asked for.

use std::process::ExitCode;

use roundel_tests::e2e_table::Table;
use roundel_tests::programs::optional::{NOT_ON_DIAGONAL, full_matrix, reason_of_skip};

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
    if full_matrix()
        && let Some(scenario) = table.skipped_for(NOT_ON_DIAGONAL)
    {
        eprintln!("e2e_table: {scenario} was to run everywhere");
        return ExitCode::FAILURE;
    }
    match table.fault() {
        None => ExitCode::SUCCESS,
        Some(fault) => {
            eprintln!("e2e_table: {fault}");
            ExitCode::FAILURE
        }
    }
}
