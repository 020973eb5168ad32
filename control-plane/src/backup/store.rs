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
use tenant_engine::SnapshotImage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::StreamReader;

use super::flush::SharedFlush;
use super::key::{BackupObjectKey, BackupObjectKind};
use super::local;
use super::manifest::{self, BackupManifest, backup_damaged};
use super::packing::{BackupPacker, BackupReader, BackupUnpacker, sha256_hex};
use crate::error::{Error, ErrorKind, Result};

/// Objects up to this size are sent in one request. Larger ones are uploaded in parts of this size; S3 requires at
/// least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Parts in flight. One upload holds at most this many times [`PART_BYTES`] in memory.
const PARTS_MAX: usize = 2;
/// The best compression that is expected. A backup needs free space for at least this fraction of the database.
const COMPRESSION_MAX: u64 = 10;
/// The folder that a probe writes to. No backup has such a key.
const PROBES: &str = "v1/probes";
/// The folder of tenants' backups.
const TENANTS: &str = "v1/tenants";
/// Databases up to this size are passed to an engine in memory, larger ones as a file.
const MEMORY_BYTES_MAX: u64 = 16 << 20;

/// A store that sends nothing for this time counts as unavailable. Longer than a disk needs to spin up, shorter than an
/// operator waits.
const STALL_MAX: Duration = Duration::from_secs(60);

/// A store for backups.
#[derive(Debug)]
pub struct BackupStore {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Flushes a local directory. A bucket is durable when it answers.
    flush: Option<SharedFlush>,
    /// The directory of a local store.
    directory: Option<PathBuf>,
    scratch: PathBuf,
    /// See [`BackupStore::display_name`].
    name: String,
}

/// The result of storing one database.
#[derive(Debug, Clone)]
pub struct StoredBackup {
    /// The database before compression.
    pub image: manifest::DatabaseImage,
    /// The object in the store.
    pub object: manifest::StoredObject,
}

impl BackupStore {
    /// Opens `file:///absolute/directory` or `s3://bucket/prefix`. A directory is created if it does not exist. A
    /// bucket takes options by the store's own names (`endpoint`, `region`, `access_key_id`, `secret_access_key`,
    /// `allow_http` …). `scratch` is a directory for databases that are being restored.
    ///
    /// # Errors
    /// `backup_store_unusable`, naming the setting.
    pub fn open_url(url: &str, options: &[(String, SecretString)], scratch: &FilePath) -> Result<Self> {
        require_known(options)?;
        let (scheme, rest) = url.split_once("://").ok_or_else(|| store_unusable("its URL has no scheme"))?;
        match scheme {
            "file" => Self::open_local(FilePath::new(rest), scratch),
            "s3" => Self::open_s3(url, rest, options, scratch),
            other => Err(store_unusable(&format!("'{other}' is not a supported kind of store (file, s3)"))),
        }
    }

    fn open_local(root: &FilePath, scratch: &FilePath) -> Result<Self> {
        let failed = |error: io::Error| {
            store_unusable(&format!("its directory cannot be created or read: {error}")).with_source(error)
        };
        if !root.is_absolute() {
            return Err(store_unusable("a file URL needs an absolute path: file:///srv/backups"));
        }
        // Backups must be readable by their owner only, whatever the process's umask is.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        let objects = LocalFileSystem::new_with_prefix(root)
            .map_err(|error| store_unusable("its directory cannot be opened").with_source(error))?;
        let flush = Some(SharedFlush::open_root(root).map_err(failed)?);
        let name = format!("file://{}", root.canonicalize().map_err(failed)?.display());
        let (directory, scratch) = (Some(root.to_path_buf()), scratch.to_path_buf());
        Ok(Self { objects: Arc::new(objects), prefix: Path::default(), flush, directory, scratch, name })
    }

    fn open_s3(url: &str, rest: &str, options: &[(String, SecretString)], scratch: &FilePath) -> Result<Self> {
        let mut builder = AmazonS3Builder::new().with_url(url);
        for (name, value) in options {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value.expose_secret());
            }
        }
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        let objects = builder.build().map_err(|error| store_unusable(&error.to_string()))?;
        let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
        let prefix = Path::parse(prefix).map_err(|_| store_unusable("the prefix in its URL is not valid"))?;
        let (scratch, name) = (scratch.to_path_buf(), bucket_name(rest, endpoint.as_deref()));
        Ok(Self { objects: Arc::new(objects), prefix, flush: None, directory: None, scratch, name })
    }

    /// The name that distinguishes this store from others, without secrets: `file:///directory`, or
    /// `s3://bucket/prefix` and its endpoint.
    #[must_use]
    pub fn display_name(&self) -> &str {
        &self.name
    }

    /// Compresses and stores a database under `key`. It is durable when this returns. Nothing refers to it before its
    /// manifest is written.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient); `disk_full` when a local store has no room for it.
    pub async fn put_image(&self, key: &BackupObjectKey, image: &SnapshotImage) -> Result<StoredBackup> {
        self.require_room(image)?;
        let key = key.with_part(BackupObjectKind::Database).to_string();
        let mut packer = BackupPacker::new(image_reader(image).await?);
        let first = packer.next_packed(PART_BYTES).await.map_err(snapshot_unreadable)?;
        if first.len() < PART_BYTES {
            self.create_object(&key, first).await?;
        } else {
            self.put_parts(&key, first, &mut packer).await?;
        }
        self.make_durable().await?;
        let (image, object) = packer.finish_packing(key);
        Ok(StoredBackup { image, object })
    }

    async fn put_parts(&self, key: &str, first: Bytes, packer: &mut BackupPacker) -> Result<()> {
        let upload = self.objects.put_multipart(&self.object_path(key)).await.map_err(store_unavailable)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = upload.wait_for_capacity(PARTS_MAX).await {
                // The uploaded parts would only take space.
                let _ = upload.abort().await;
                return Err(store_unavailable(error));
            }
            upload.put(part);
            part = packer.next_packed(PART_BYTES).await.map_err(snapshot_unreadable)?;
        }
        upload.finish().await.map_err(store_unavailable)?;
        Ok(())
    }

    /// Refuses a backup that cannot fit, before anything of it is written.
    fn require_room(&self, image: &SnapshotImage) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let bytes = match image {
            SnapshotImage::Memory(bytes) => bytes.len() as u64,
            SnapshotImage::File(path) => std::fs::metadata(path).map_or(0, |file| file.len()),
        };
        Ok(tenant_engine::disk::require_room(directory, bytes / COMPRESSION_MAX)?)
    }

    /// Writes a backup's manifest. The backup exists from this moment on. Returns the SHA-256 of the written bytes,
    /// hex.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient).
    pub async fn put_manifest(&self, key: &BackupObjectKey, manifest: &impl serde::Serialize) -> Result<String> {
        let json = serde_json::to_vec_pretty(manifest)
            .map_err(|error| Error::internal("a manifest cannot be written").with_source(error))?;
        let hash = sha256_hex(&json);
        self.create_object(&key.with_part(BackupObjectKind::Manifest).to_string(), json.into()).await?;
        self.make_durable().await?;
        Ok(hash)
    }

    /// Writes, reads and removes a small object, and looks for the manifests of existing backups. Returns how many are
    /// missing.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient).
    pub async fn probe_store(&self, keys: &[BackupObjectKey]) -> Result<usize> {
        self.require_present()?;
        self.write_and_remove().await?;
        let mut missing = 0;
        for key in keys {
            missing += usize::from(!self.contains_object(key).await?);
        }
        Ok(missing)
    }

    /// Whether the store holds an object under this key.
    ///
    /// # Errors
    /// `backup_store_unavailable` (transient).
    pub async fn contains_object(&self, key: &BackupObjectKey) -> Result<bool> {
        match self.objects.head(&self.object_path(&key.to_string())).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(store_unavailable(error)),
        }
    }

    /// Refuses a local store whose directory is missing or was replaced. The next write would silently create it again.
    fn require_present(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let (Some(flush), Some(directory)) = (&self.flush, &self.directory) else { return Ok(()) };
        let opened = flush.root_file().metadata().map_err(store_unavailable)?;
        match std::fs::metadata(directory) {
            Ok(found) if (found.dev(), found.ino()) == (opened.dev(), opened.ino()) => Ok(()),
            Ok(_) => Err(store_unavailable("its directory was replaced after this process opened it")),
            Err(error) => Err(store_unavailable(error)),
        }
    }

    async fn write_and_remove(&self) -> Result<()> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let at = self.object_path(&format!("{PROBES}/{name}"));
        self.objects.put(&at, PutPayload::from(name.clone())).await.map_err(store_unavailable)?;
        let read = async { self.objects.get(&at).await?.bytes().await }.await;
        let removed = self.objects.delete(&at).await;
        match read.map_err(store_unavailable)? {
            bytes if bytes == name.as_bytes() => removed.map_err(store_unavailable),
            _ => Err(store_unavailable("it returned other data than was written")),
        }
    }

    /// A backup's manifest and the SHA-256 of its bytes, hex. Only the store says that it is the right one.
    ///
    /// # Errors
    /// `backup_damaged` when it is missing or not a manifest; `backup_newer`; `backup_store_unavailable` (transient).
    pub async fn read_manifest(&self, key: &BackupObjectKey) -> Result<(BackupManifest, String)> {
        let (stored, length) = match self.get_object(key, "its manifest").await {
            Err(error) if error.kind == ErrorKind::BackupDamaged && self.is_empty().await? => {
                return Err(store_is_empty());
            }
            got => got?,
        };
        if length > manifest::BYTES_MAX {
            return Err(backup_damaged("its manifest is too large to be one"));
        }
        let mut bytes = Vec::new();
        in_time(stored.take(length).read_to_end(&mut bytes)).await?.map_err(store_unavailable)?;
        Ok((BackupManifest::parse_manifest(&bytes, key)?, sha256_hex(&bytes)))
    }

    /// Whether the store holds no tenant's backup. A store that was lost or replaced says nothing about any backup.
    async fn is_empty(&self) -> Result<bool> {
        let mut objects = self.objects.list(Some(&self.object_path(TENANTS)));
        Ok(objects.try_next().await.map_err(store_unavailable)?.is_none())
    }

    /// The database of a backup, proved to be that of this manifest by lengths and hashes before and after
    /// decompression. No more is read or unpacked than the manifest says, so the caller must trust the manifest first.
    ///
    /// # Errors
    /// `backup_damaged`; `backup_store_unavailable` (transient); `disk_full` when there is no room for it.
    pub async fn read_image(&self, manifest: &BackupManifest) -> Result<SnapshotImage> {
        let key: BackupObjectKey = manifest.object.key.parse()?;
        let (stored, length) = self.get_object(&key, "its object").await?;
        if length != manifest.object.size_bytes {
            let announced = manifest.object.size_bytes;
            return Err(backup_damaged(&format!("its object has {length} bytes, but its manifest says {announced}")));
        }
        let mut unpacker = BackupUnpacker::new(Box::new(stored.take(length)));
        let image = if manifest.image.size_bytes <= MEMORY_BYTES_MAX {
            to_memory(&mut unpacker, manifest.image.size_bytes).await?
        } else {
            self.to_file(&mut unpacker, manifest.image.size_bytes).await?
        };
        if unpacker.matches_manifest(&manifest.image, &manifest.object) {
            Ok(image)
        } else {
            Err(backup_damaged("its hash is not the one in its manifest"))
        }
    }

    async fn to_file(&self, unpacker: &mut BackupUnpacker, size_max: u64) -> Result<SnapshotImage> {
        tenant_engine::disk::require_room(&self.scratch, size_max)?;
        let (file, path) = tempfile::Builder::new()
            .prefix("restore-")
            .tempfile_in(&self.scratch)
            .map_err(Error::scratch_unwritable)?
            .into_parts();
        let mut file = tokio::fs::File::from_std(file);
        while let Some(chunk) = next_chunk(unpacker, size_max).await? {
            file.write_all(&chunk).await.map_err(Error::scratch_unwritable)?;
        }
        file.flush().await.map_err(Error::scratch_unwritable)?;
        Ok(SnapshotImage::File(path))
    }

    /// An object's bytes, and the length that the store announces.
    async fn get_object(&self, key: &BackupObjectKey, what: &'static str) -> Result<(BackupReader, u64)> {
        // A store that is missing says nothing about its backups.
        self.require_present()?;
        let key = key.to_string();
        if let Some(flush) = &self.flush {
            let (file, length) =
                in_time(local::open_object(flush.root_file(), &key)).await?.map_err(open_error(what))?;
            return Ok((Box::new(file), length));
        }
        let found = in_time(self.objects.get(&self.object_path(&key))).await?.map_err(get_error(what))?;
        let length = found.meta.size;
        Ok((Box::new(StreamReader::new(found.into_stream().map_err(io::Error::other))), length))
    }

    async fn create_object(&self, key: &str, bytes: Bytes) -> Result<()> {
        let payload = PutPayload::from_bytes(bytes);
        self.objects
            .put_opts(&self.object_path(key), payload, PutMode::Create.into())
            .await
            .map_err(store_unavailable)?;
        Ok(())
    }

    async fn make_durable(&self) -> Result<()> {
        match &self.flush {
            Some(flush) => flush.wait_for_flush().await,
            None => Ok(()),
        }
    }

    fn object_path(&self, key: &str) -> Path {
        if self.prefix.as_ref().is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }
}

/// Refuses unknown options from the settings. Unknown variables of the environment, in upper case, are ignored:
/// `AWS_PROFILE` and `AWS_PAGER` belong to other programs.
fn require_known(options: &[(String, SecretString)]) -> Result<()> {
    for (name, _) in options {
        let is_known = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().is_ok();
        match is_known || name.starts_with("AWS_") {
            true => {}
            false => return Err(store_unusable(&format!("it has no option '{name}'"))),
        }
    }
    Ok(())
}

/// PURE: the bucket's name with its endpoint's host. The rest is left out, because an endpoint may contain a password.
fn bucket_name(place: &str, endpoint: Option<&str>) -> String {
    let bucket = format!("s3://{}", place.trim_end_matches('/'));
    let Some(endpoint) = endpoint else { return bucket };
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{bucket} at {scheme}://{host}")
}

async fn image_reader(image: &SnapshotImage) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
    Ok(match image {
        SnapshotImage::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        SnapshotImage::File(path) => Box::new(tokio::fs::File::open(path).await.map_err(snapshot_unreadable)?),
    })
}

async fn to_memory(unpacker: &mut BackupUnpacker, size_max: u64) -> Result<SnapshotImage> {
    let mut out = BytesMut::with_capacity(usize::try_from(size_max).unwrap_or(0));
    while let Some(chunk) = next_chunk(unpacker, size_max).await? {
        out.extend_from_slice(&chunk);
    }
    Ok(SnapshotImage::Memory(out.freeze()))
}

/// The next chunk, or none at the end. Stops at the size in the manifest, so that a forged object cannot fill the disk.
async fn next_chunk(unpacker: &mut BackupUnpacker, size_max: u64) -> Result<Option<Bytes>> {
    let chunk = in_time(unpacker.next_unpacked()).await?.map_err(|error| match store_error(&error) {
        true => store_unavailable(error),
        false => backup_damaged("it cannot be decompressed").with_source(error),
    })?;
    if unpacker.size_bytes() > size_max {
        return Err(backup_damaged("it is larger than its manifest says"));
    }
    Ok((!chunk.is_empty()).then_some(chunk))
}

/// Whether reading failed because of the store, not because of the object's content.
fn store_error(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || error.get_ref().is_some_and(|inner| inner.is::<object_store::Error>())
}

/// Waits for the store no longer than [`STALL_MAX`].
async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T> {
    let answer = tokio::time::timeout(STALL_MAX, answer).await;
    answer.map_err(|_| store_unavailable(format!("it sent nothing for {} s", STALL_MAX.as_secs())))
}

fn open_error(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => backup_damaged(&format!("{what} is missing from the backup store")),
        io::ErrorKind::InvalidData => backup_damaged(&format!("{what} is not a regular file in the backup store")),
        _ => store_unavailable(error),
    }
}

fn get_error(what: &'static str) -> impl Fn(object_store::Error) -> Error {
    move |error| match error {
        object_store::Error::NotFound { .. } => backup_damaged(&format!("{what} is missing from the backup store")),
        other => store_unavailable(other),
    }
}

fn store_unusable(why: &str) -> Error {
    Error::new(ErrorKind::BackupStoreUnusable, format!("the backup store cannot be used: {why}"))
        .try_next("check the setting backup_url and the options that go with it")
}

/// The error of a store that seems to be lost, replaced or not mounted.
fn store_is_empty() -> Error {
    let mut error = store_unavailable("it is empty");
    error.detail = "the backup store contains no backup at all, so it is not the store that was used before".to_owned();
    error
}

fn store_unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    if is_full(&*error) {
        let full = Error::new(ErrorKind::DiskFull, "the disk of the backup store is full").with_source(error);
        return full.try_next("free space there; fleetctl backup list shows the backups that it holds");
    }
    let detail = format!("the backup store could not be read or written: {}", innermost_message(&*error));
    Error::new(ErrorKind::BackupStoreUnavailable, detail).with_source(error)
}

/// Maximum length of a store's message that is shown to people.
const OWN_WORDS_MAX: usize = 300;

/// The innermost message, that of the store or the system: refused, denied, full.
fn innermost_message(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    let words = innermost.to_string();
    words.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(OWN_WORDS_MAX).collect()
}

/// Whether the disk of a local store is full. The store wraps the system's error.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(crate::error::is_full)
}

fn snapshot_unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::TemporaryFileUnusable, "a snapshot could not be read back").with_source(error)
}
