//! The handle of a member.

use std::sync::Arc;
use std::task::{Poll, Waker};

use super::Shared;
use super::members::Application;
use crate::{Error, Membership, MembershipConfig, MembershipEvent, TaskId};

pub(super) struct SimMembership {
    shared: Shared,
    application: Arc<str>,
    number: u64,
}

impl SimMembership {
    pub(super) fn join(
        shared: &Shared,
        config: MembershipConfig,
        waker: Waker,
    ) -> Result<Self, Error> {
        let name = config.application.clone();
        let number = shared.with(|state| {
            state.check_open()?;
            let number = state.number();
            let application = state.applications.entry(name.clone());
            if application.or_insert_with(Application::new).join(number, &config, waker) {
                Ok(number)
            } else {
                Err(Error::OtherTopology { application: name.to_string() })
            }
        })?;
        Ok(Self { shared: shared.clone(), application: name, number })
    }

    fn application<T: Default>(
        &self,
        call: impl FnOnce(&mut Application, &mut Vec<Waker>) -> T,
    ) -> T {
        self.shared.with(|state| {
            let application = state.applications.get_mut(&self.application);
            application.map(|a| call(a, &mut state.to_wake)).unwrap_or_default()
        })
    }
}

impl Membership for SimMembership {
    fn poll(&mut self) -> Poll<MembershipEvent> {
        let event = self.application(|application, _| application.poll(self.number));
        event.map_or(Poll::Pending, Poll::Ready)
    }

    fn ack(&mut self, tasks: &[TaskId]) {
        self.application(|application, to_wake| application.ack(self.number, tasks, to_wake));
    }

    fn set_tasks(&mut self, tasks: &[TaskId]) {
        self.application(|application, _| application.set_tasks(self.number, tasks));
    }

    fn stop_application(&mut self) {
        self.application(|application, to_wake| application.stop(to_wake));
    }

    fn progress(&mut self, _lags: &[(TaskId, u64)]) {
        // Tasks are not moved for being far behind: the contract leaves that to the broker.
    }
}

impl Drop for SimMembership {
    fn drop(&mut self) {
        self.application(|application, _| application.leave(self.number));
    }
}
