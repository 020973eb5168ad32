//! The backup store: a local directory or a bucket. Objects are written once and never changed.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};
use secrecy::{ExposeSecret, SecretString};
use tenant_engine::Image;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::StreamReader;

use super::flush::Flush;
use super::key::{Key, Part};
use super::local;
use super::manifest::{self, Manifest, damaged};
use super::packing::{Packer, Reader, Unpacker, sha256};
use crate::error::{Error, Result};

/// Objects up to this are one request; larger ones go up in parts of this size (the least that S3 takes is 5 MiB).
const PART_BYTES: usize = 8 << 20;
/// Parts in flight: what one upload may hold in memory is this times [`PART_BYTES`].
const PARTS_MAX: usize = 2;
/// A database that takes less than this part of its size in the store is rare: room for so much must be there.
const COMPRESSION_MAX: u64 = 10;
/// Where a probe writes: no backup has such a key.
const PROBES: &str = "v1/probes";
/// Where backups of tenants are.
const TENANTS: &str = "v1/tenants";
/// Databases up to this are handed to an engine in memory, larger ones as a file.
const MEMORY_BYTES_MAX: u64 = 16 << 20;

/// A store that gives nothing for so long is not there: longer than any disk spins up, shorter than an operator waits.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Where backups are.
#[derive(Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// A local directory is flushed by hand; a bucket is durable when it answers.
    flush: Option<Flush>,
    /// Of a local store.
    directory: Option<PathBuf>,
    scratch: PathBuf,
}

/// What was stored of one database.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Before compression.
    pub image: manifest::Image,
    /// In the store.
    pub object: manifest::Object,
}

impl Store {
    /// Opens `file:///absolute/directory` (made if it is not there) or `s3://bucket/prefix`, the latter with options by
    /// the store's own names (`endpoint`, `region`, `access_key_id`, `secret_access_key`, `allow_http` …).
    /// `scratch` is a directory for databases on their way back.
    ///
    /// # Errors
    /// `backup_store_unusable`, naming the setting.
    pub fn open(url: &str, options: &[(String, SecretString)], scratch: &FilePath) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| unusable("its URL has no scheme"))?;
        match scheme {
            "file" => Self::local(FilePath::new(rest), scratch),
            "s3" => Self::s3(url, rest, options, scratch),
            other => Err(unusable(&format!("'{other}' is not a kind of store this program knows (file, s3)"))),
        }
    }

    fn local(root: &FilePath, scratch: &FilePath) -> Result<Self> {
        let failed =
            |error: io::Error| unusable(&format!("its directory cannot be made or read: {error}")).with_source(error);
        if !root.is_absolute() {
            return Err(unusable("a file URL needs an absolute path: file:///srv/backups"));
        }
        // Before the process has set its umask: backups are their owner's alone.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        let objects = LocalFileSystem::new_with_prefix(root)
            .map_err(|error| unusable("its directory cannot be opened").with_source(error))?;
        let flush = Some(Flush::of(root).map_err(failed)?);
        let (directory, scratch) = (Some(root.to_path_buf()), scratch.to_path_buf());
        Ok(Self { objects: Arc::new(objects), prefix: Path::default(), flush, directory, scratch })
    }

    fn s3(url: &str, rest: &str, options: &[(String, SecretString)], scratch: &FilePath) -> Result<Self> {
        let mut builder = AmazonS3Builder::new().with_url(url);
        for (name, value) in options {
            let name = name.to_ascii_lowercase();
            match name.parse::<AmazonS3ConfigKey>() {
                Ok(key) => builder = builder.with_config(key, value.expose_secret()),
                // Other programs' variables: AWS_PROFILE, AWS_PAGER.
                Err(_) if name.starts_with("aws_") => tracing::debug!(name, "the backup store does not use it"),
                Err(_) => return Err(unusable(&format!("it knows no option '{name}'"))),
            }
        }
        let objects = builder.build().map_err(|error| unusable(&error.to_string()))?;
        let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
        let prefix = Path::parse(prefix).map_err(|_| unusable("the prefix in its URL is not valid"))?;
        let scratch = scratch.to_path_buf();
        Ok(Self { objects: Arc::new(objects), prefix, flush: None, directory: None, scratch })
    }

    /// Compresses and stores a database under `key`; durable when it returns. Nothing refers to it before its manifest
    /// is written.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient); `disk_full` when a local store has no room for it.
    pub async fn put_image(&self, key: &Key, image: &Image) -> Result<Stored> {
        self.require_room(image)?;
        let key = key.part(Part::Database).to_string();
        let mut packer = Packer::new(reader(image).await?);
        let first = packer.next(PART_BYTES).await.map_err(unreadable)?;
        if first.len() < PART_BYTES {
            self.create(&key, first).await?;
        } else {
            self.put_parts(&key, first, &mut packer).await?;
        }
        self.durable().await?;
        let (image, object) = packer.finish(key);
        Ok(Stored { image, object })
    }

    async fn put_parts(&self, key: &str, first: Bytes, packer: &mut Packer) -> Result<()> {
        let upload = self.objects.put_multipart(&self.at(key)).await.map_err(unavailable)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = upload.wait_for_capacity(PARTS_MAX).await {
                // What was written of it would only take room.
                let _ = upload.abort().await;
                return Err(unavailable(error));
            }
            upload.put(part);
            part = packer.next(PART_BYTES).await.map_err(unreadable)?;
        }
        upload.finish().await.map_err(unavailable)?;
        Ok(())
    }

    /// Refuses a backup that cannot fit before anything of it is written.
    fn require_room(&self, image: &Image) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let bytes = match image {
            Image::Memory(bytes) => bytes.len() as u64,
            Image::File(path) => std::fs::metadata(path).map_or(0, |file| file.len()),
        };
        Ok(tenant_engine::disk::require_room(directory, bytes / COMPRESSION_MAX)?)
    }

    /// Writes a backup's manifest: from now on, and only from now on, the backup exists. Returns the SHA-256 of what was
    /// written, hex.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient).
    pub async fn put_manifest(&self, key: &Key, manifest: &impl serde::Serialize) -> Result<String> {
        let json = serde_json::to_vec_pretty(manifest)
            .map_err(|error| Error::internal("a manifest cannot be written").with_source(error))?;
        let hash = sha256(&json);
        self.create(&key.part(Part::Manifest).to_string(), json.into()).await?;
        self.durable().await?;
        Ok(hash)
    }

    /// Writes, reads and removes a small object, and looks for the manifests of backups that should be there; returns how many are missing.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient).
    pub async fn probe(&self, keys: &[Key]) -> Result<usize> {
        self.must_be_there()?;
        self.write_and_remove().await?;
        let mut missing = 0;
        for key in keys {
            missing += usize::from(!self.holds(key).await?);
        }
        Ok(missing)
    }

    /// Whether there is an object of this key.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient).
    pub async fn holds(&self, key: &Key) -> Result<bool> {
        match self.objects.head(&self.at(&key.to_string())).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// A local store whose directory went, or was exchanged, would be made anew by the next write.
    fn must_be_there(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let (Some(flush), Some(directory)) = (&self.flush, &self.directory) else { return Ok(()) };
        let opened = flush.root().metadata().map_err(unavailable)?;
        match std::fs::metadata(directory) {
            Ok(found) if (found.dev(), found.ino()) == (opened.dev(), opened.ino()) => Ok(()),
            Ok(_) => Err(unavailable("its directory was exchanged since this process opened it")),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn write_and_remove(&self) -> Result<()> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let at = self.at(&format!("{PROBES}/{name}"));
        self.objects.put(&at, PutPayload::from(name.clone())).await.map_err(unavailable)?;
        let read = async { self.objects.get(&at).await?.bytes().await }.await;
        let removed = self.objects.delete(&at).await;
        match read.map_err(unavailable)? {
            bytes if bytes == name.as_bytes() => removed.map_err(unavailable),
            _ => Err(unavailable("it gave back something else than was written")),
        }
    }

    /// The manifest of a backup and the SHA-256 of its bytes, hex. Nothing but the store says that it is the right one.
    ///
    /// # Errors
    /// `backup_damaged` when it is missing or not one; `backup_newer`; `backup_store_unavailable` (transient).
    pub async fn manifest(&self, key: &Key) -> Result<(Manifest, String)> {
        let (stored, length) = match self.get(key, "its manifest").await {
            Err(error) if error.code == "backup_damaged" && self.is_empty().await? => return Err(nothing_there()),
            got => got?,
        };
        if length > manifest::BYTES_MAX {
            return Err(damaged("its manifest is too large to be one"));
        }
        let mut bytes = Vec::new();
        in_time(stored.take(length).read_to_end(&mut bytes)).await?.map_err(unavailable)?;
        Ok((Manifest::parse(&bytes, key)?, sha256(&bytes)))
    }

    /// Whether no tenant's backup is there: a store that was lost or exchanged says nothing about any of them.
    async fn is_empty(&self) -> Result<bool> {
        let mut objects = self.objects.list(Some(&self.at(TENANTS)));
        Ok(objects.try_next().await.map_err(unavailable)?.is_none())
    }

    /// The database of a backup, proved to be the one of this manifest: lengths and hashes before and after
    /// decompression. No more is read, and no more is unpacked, than the manifest says; so it must be believed before.
    ///
    /// # Errors
    /// `backup_damaged`; `backup_store_unavailable` (transient); `disk_full` when there is no room for it.
    pub async fn image(&self, manifest: &Manifest) -> Result<Image> {
        let key: Key = manifest.object.key.parse()?;
        let (stored, length) = self.get(&key, "its object").await?;
        if length != manifest.object.size_bytes {
            let announced = manifest.object.size_bytes;
            return Err(damaged(&format!("its object has {length} bytes, and its manifest says {announced}")));
        }
        let mut unpacker = Unpacker::new(Box::new(stored.take(length)));
        let image = if manifest.image.size_bytes <= MEMORY_BYTES_MAX {
            to_memory(&mut unpacker, manifest.image.size_bytes).await?
        } else {
            self.to_file(&mut unpacker, manifest.image.size_bytes).await?
        };
        if unpacker.matches(&manifest.image, &manifest.object) {
            Ok(image)
        } else {
            Err(damaged("its hash is not the one in its manifest"))
        }
    }

    async fn to_file(&self, unpacker: &mut Unpacker, size_max: u64) -> Result<Image> {
        tenant_engine::disk::require_room(&self.scratch, size_max)?;
        let (file, path) =
            tempfile::Builder::new().prefix("restore-").tempfile_in(&self.scratch).map_err(no_room)?.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        while let Some(chunk) = next(unpacker, size_max).await? {
            file.write_all(&chunk).await.map_err(no_room)?;
        }
        file.flush().await.map_err(no_room)?;
        Ok(Image::File(path))
    }

    /// An object, and the length that the store announces.
    async fn get(&self, key: &Key, what: &'static str) -> Result<(Reader, u64)> {
        // A store that is not there says nothing about its backups.
        self.must_be_there()?;
        let key = key.to_string();
        if let Some(flush) = &self.flush {
            let (file, length) = in_time(local::open(flush.root(), &key)).await?.map_err(unopened(what))?;
            return Ok((Box::new(file), length));
        }
        let found = in_time(self.objects.get(&self.at(&key))).await?.map_err(missing(what))?;
        let length = found.meta.size;
        Ok((Box::new(StreamReader::new(found.into_stream().map_err(io::Error::other))), length))
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<()> {
        let payload = PutPayload::from_bytes(bytes);
        self.objects.put_opts(&self.at(key), payload, PutMode::Create.into()).await.map_err(unavailable)?;
        Ok(())
    }

    async fn durable(&self) -> Result<()> {
        match &self.flush {
            Some(flush) => flush.flushed().await,
            None => Ok(()),
        }
    }

    fn at(&self, key: &str) -> Path {
        if self.prefix.as_ref().is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }
}

async fn reader(image: &Image) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
    Ok(match image {
        Image::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        Image::File(path) => Box::new(tokio::fs::File::open(path).await.map_err(unreadable)?),
    })
}

async fn to_memory(unpacker: &mut Unpacker, size_max: u64) -> Result<Image> {
    let mut out = BytesMut::with_capacity(usize::try_from(size_max).unwrap_or(0));
    while let Some(chunk) = next(unpacker, size_max).await? {
        out.extend_from_slice(&chunk);
    }
    Ok(Image::Memory(out.freeze()))
}

/// The next chunk, or none at the end; stops at what the manifest allows, so that a forged object cannot fill the disk.
async fn next(unpacker: &mut Unpacker, size_max: u64) -> Result<Option<Bytes>> {
    let chunk = in_time(unpacker.next()).await?.map_err(|error| match store_error(&error) {
        true => unavailable(error),
        false => damaged("it cannot be decompressed").with_source(error),
    })?;
    if unpacker.size_bytes() > size_max {
        return Err(damaged("it is larger than its manifest says"));
    }
    Ok((!chunk.is_empty()).then_some(chunk))
}

/// True when reading failed because of the store, not because of what it holds.
fn store_error(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || error.get_ref().is_some_and(|inner| inner.is::<object_store::Error>())
}

/// Waits for the store no longer than [`STALL_MAX`].
async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T> {
    let answer = tokio::time::timeout(STALL_MAX, answer).await;
    answer.map_err(|_| unavailable(format!("it gave nothing for {} s", STALL_MAX.as_secs())))
}

fn unopened(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => damaged(&format!("{what} is missing from the backup store")),
        io::ErrorKind::InvalidData => damaged(&format!("{what} is not a regular file in the backup store")),
        _ => unavailable(error),
    }
}

fn missing(what: &'static str) -> impl Fn(object_store::Error) -> Error {
    move |error| match error {
        object_store::Error::NotFound { .. } => damaged(&format!("{what} is missing from the backup store")),
        other => unavailable(other),
    }
}

fn unusable(why: &str) -> Error {
    Error::new(422, "backup_store_unusable", format!("the backup store cannot be used: {why}"))
        .try_next("check --backup-url and the options that go with it")
}

/// What a lost, exchanged or unmounted store looks like.
fn nothing_there() -> Error {
    let mut error = unavailable("it is empty");
    error.detail = "the backup store holds no backup at all, so it is not the one that was written to".to_owned();
    error
}

fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    if is_full(&*error) {
        let full = Error::new(507, "disk_full", "the disk of the backup store is full").with_source(error);
        return full.transient().try_next("free space there, for instance: fleetctl backup list shows what is kept");
    }
    let detail = format!("the backup store could not be read or written: {}", own_words(&*error));
    Error::new(503, "backup_store_unavailable", detail).with_source(error).transient()
}

/// Of a store's answer, shown to a human.
const OWN_WORDS_MAX: usize = 300;

/// What the store or the system said, without what was wrapped around it: refused, denied, full.
fn own_words(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    let words = innermost.to_string();
    words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(OWN_WORDS_MAX).collect()
}

/// True when the disk of a local store has no room: the store wraps the system's error.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn unreadable(error: io::Error) -> Error {
    Error::new(500, "io", "a snapshot could not be read back").with_source(error).transient()
}

fn no_room(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull => Error::new(507, "disk_full", "the disk has no room for the backup"),
        _ => Error::new(500, "io", "the scratch directory cannot be written"),
    }
    .with_source(error)
    .transient()
}
