//! Mortise: its group, its provider, its storage, one transaction per step.

use anyhow::{Context as _, anyhow, bail};
use mortise_client::machine::{now_ms, system_rng};
use mortise_protocol::group::{
    Changes, Crypto, Group, GroupPolicy, Me, MlsProvider, Opened, make_key_package,
    read_key_package,
};
use mortise_protocol::identity::{DeviceId, GroupId, OrgId, SigningKey, UserId};
use mortise_protocol::store::{Tx, commit};

use super::disk::Disk;
use super::stack::{Commit, Device};

const ORG: OrgId = OrgId([9; 32]);

pub(super) struct Ours {
    disk: Disk,
    crypto: Crypto,
    key: SigningKey,
    user: UserId,
    suite: u16,
    group: Option<Group>,
}

impl Ours {
    fn me(&self) -> Me<'_> {
        Me {
            org: ORG,
            user: self.user,
            device: self.key.public().device_id(),
            key: &self.key,
        }
    }

    /// One step in one transaction, which is durable when this returns.
    fn step<T>(
        &mut self,
        work: impl FnOnce(&MlsProvider<'_, '_>, &Me<'_>, &mut Option<Group>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut group = self.group.take();
        let tx = Tx::new(&self.disk.store);
        let provider = MlsProvider::new(&self.crypto, &tx);
        let value = work(&provider, &self.me(), &mut group)?;
        let batch = tx.into_batch()?;
        commit(&mut self.disk.store, &batch)?;
        self.group = group;
        Ok(value)
    }
}

fn held(group: &mut Option<Group>) -> anyhow::Result<&mut Group> {
    group.as_mut().context("no group")
}

fn made(out: mortise_protocol::group::CommitOut) -> Commit {
    Commit {
        commit: out.commit,
        welcome: out.welcome,
    }
}

impl Device for Ours {
    fn new(number: usize, suite: u16, is_kept: bool) -> anyhow::Result<Self> {
        let mut user = [0; 16];
        user[..8].copy_from_slice(&u64::try_from(number)?.to_be_bytes());
        Ok(Self {
            disk: Disk::new(is_kept)?,
            crypto: Crypto::default(),
            key: SigningKey::generate(&mut system_rng()),
            user: UserId(user),
            suite,
            group: None,
        })
    }

    fn key_package(&mut self) -> anyhow::Result<Vec<u8>> {
        let suite = self.suite;
        self.step(|provider, me, _| Ok(make_key_package(provider, me, suite, false, now_ms())?))
    }

    fn create(&mut self) -> anyhow::Result<()> {
        let (suite, user) = (self.suite, self.user);
        self.step(|provider, me, group| {
            let policy = GroupPolicy::new("everybody".into(), user);
            let id = GroupId::random(&mut system_rng());
            *group = Some(Group::create(provider, me, id, suite, &policy)?);
            Ok(())
        })
    }

    fn join(&mut self, welcome: &[u8]) -> anyhow::Result<()> {
        self.step(|provider, _, group| {
            *group = Some(Group::join(provider, welcome)?.group);
            Ok(())
        })
    }

    fn add(&mut self, key_packages: &[Vec<u8>]) -> anyhow::Result<Commit> {
        let read = |bytes: &Vec<u8>| read_key_package(&self.crypto, self.suite, now_ms(), bytes);
        let adds = key_packages.iter().map(read).collect::<Result<_, _>>()?;
        let changes = Changes {
            adds,
            ..Changes::default()
        };
        self.step(|provider, me, group| {
            Ok(made(held(group)?.commit(
                provider,
                me,
                Vec::new(),
                changes,
            )?))
        })
    }

    fn commit(&mut self, remove: Option<u32>) -> anyhow::Result<Commit> {
        self.step(|provider, me, group| {
            let group = held(group)?;
            let gone = group.members().filter(|m| Some(m.index) == remove);
            let removes: Vec<DeviceId> = gone.map(|m| m.leaf.device).collect();
            let changes = Changes {
                removes,
                ..Changes::default()
            };
            Ok(made(group.commit(provider, me, Vec::new(), changes)?))
        })
    }

    fn apply_own(&mut self) -> anyhow::Result<()> {
        self.step(|provider, _, group| Ok(held(group)?.merge_pending(provider)?))
    }

    fn follow(&mut self, commit: &[u8]) -> anyhow::Result<()> {
        self.step(|provider, _, group| {
            let group = held(group)?;
            match group.open(provider, commit)? {
                Opened::Commit(change) => Ok(group.merge(provider, *change)?),
                _ => bail!("not a commit"),
            }
        })
    }

    fn send(&mut self, text: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.step(|provider, me, group| Ok(held(group)?.encrypt(provider, me, Vec::new(), text)?))
    }

    fn receive(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.step(
            |provider, _, group| match held(group)?.open(provider, message)? {
                Opened::Application { bytes, .. } => Ok(bytes.to_vec()),
                _ => bail!("not a message"),
            },
        )
    }

    fn authenticator(&self) -> anyhow::Result<Vec<u8>> {
        let group = self.group.as_ref().ok_or_else(|| anyhow!("no group"))?;
        Ok(group.epoch_authenticator())
    }
}
