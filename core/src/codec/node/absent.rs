//! What stands in for the codec where the feature `node` is off: types that have no values.

use alloc::vec::Vec;
use core::convert::Infallible;
use core::marker::PhantomData;

use super::host::Host;
use super::primary_event::PrimaryEvent;
use super::worker_event::WorkerEvent;
use crate::{DecodeError, FromWorker, ToWorker};

pub(crate) fn primary_side(_: u32, _: Host) -> Option<PrimarySide<()>> {
    None
}

pub(crate) fn worker_side<T>(_: u32) -> Option<WorkerSide<T>> {
    None
}

#[derive(Clone, Debug)]
pub(crate) struct PrimarySide<T>(Infallible, PhantomData<T>);

impl<T> PrimarySide<T> {
    pub(crate) fn feed(&mut self, _: &[u8], _: Option<T>) {
        match self.0 {}
    }

    pub(crate) fn poll(&mut self) -> Result<Option<PrimaryEvent<T>>, DecodeError> {
        match self.0 {}
    }

    pub(crate) fn note(&mut self, _: &ToWorker) {
        match self.0 {}
    }

    pub(crate) fn unsent(&mut self, _: &ToWorker) {
        match self.0 {}
    }

    pub(crate) fn wished_mode(&self, _: &ToWorker) -> Option<u32> {
        match self.0 {}
    }

    pub(crate) fn encode(&self, _: &ToWorker, _: &mut Vec<u8>) {
        match self.0 {}
    }
}

#[derive(Clone, Debug)]
pub(crate) struct WorkerSide<T>(Infallible, PhantomData<T>);

impl<T> WorkerSide<T> {
    pub(crate) fn feed(&mut self, _: &[u8], _: Option<T>) {
        match self.0 {}
    }

    pub(crate) fn poll(&mut self) -> Result<Option<WorkerEvent<T>>, DecodeError> {
        match self.0 {}
    }

    pub(crate) fn encode(&mut self, _: &FromWorker, _: &mut Vec<u8>) {
        match self.0 {}
    }
}
