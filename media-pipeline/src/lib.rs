//! From an upload to what is shown: idempotent stages over object storage.
//!
//! Read [`render`] (pure: bytes in, renditions out), then [`publish`] (the same, from and to an object store).
//!
//! Invariants:
//! - Bounded memory: the number of pixels is checked before any is decoded.
//! - Idempotent: a rendition's place is a function of the media's id and its name, so doing it again writes the same again.
//! - The original is never written to.
//!
//! What is not here yet: video, WebP and AVIF, the scan for malware, and reporting back by command; they come with the first
//! upload. Nothing here knows who may see what.

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, ImageError, ImageReader, Limits};
use imageproc::filter::gaussian_blur_f32;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use std::io::Cursor;

/// Pixels of the largest photo that is taken: 50 megapixels, which decode to 200 MB at most.
pub const PIXELS_MAX: u64 = 50_000_000;
/// Widths of the renditions in pixels; none is wider than the original.
pub const WIDTHS: [u32; 4] = [320, 640, 1280, 2048];
/// Width of the preview that whoever has no access sees, in pixels; small enough that the blur cannot be undone.
const PREVIEW_WIDTH: u32 = 48;
/// Blur of the preview, standard deviation in pixels.
const PREVIEW_SIGMA: f32 = 2.5;
/// JPEG quality of renditions, of 100.
const QUALITY: u8 = 82;
/// Decoded samples take up to 8 bytes a pixel (16-bit RGBA).
const DECODE_BYTES_MAX: u64 = PIXELS_MAX * 8;

/// Why an upload was not rendered.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// Not a JPEG or PNG, or a broken one.
    #[error("the upload is not a photo that can be read; send JPEG or PNG")]
    Decode(#[source] ImageError),
    /// The container could not be read at all.
    #[error("the upload could not be read")]
    Read(#[source] std::io::Error),
    /// More pixels than are taken.
    #[error("the photo has {pixels} pixels, at most {pixels_max} are taken; make it smaller")]
    TooLarge {
        /// Its pixels.
        pixels: u64,
        /// How many are taken.
        pixels_max: u64,
    },
    /// A rendition could not be encoded.
    #[error("encode a rendition")]
    Encode(#[source] ImageError),
    /// The object store failed.
    #[error("read or write the object store")]
    Store(#[from] object_store::Error),
}

/// One picture made of an original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// `w640`, or `preview`: also the last part of its place in the store.
    pub name: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// JPEG.
    pub bytes: Bytes,
}

/// Makes every rendition of an original: widths up to its own, and the blurred preview.
pub fn render(original: &[u8]) -> Result<Vec<Rendition>, MediaError> {
    let photo = decode(original, PIXELS_MAX)?;
    let mut renditions = Vec::new();
    for width in WIDTHS.into_iter().filter(|width| *width <= photo.width()) {
        let resized = photo.resize(width, u32::MAX, FilterType::CatmullRom);
        renditions.push(encode(format!("w{width}"), &resized)?);
    }
    if renditions.is_empty() {
        renditions.push(encode(format!("w{}", photo.width()), &photo)?);
    }
    let small = photo.resize(PREVIEW_WIDTH, u32::MAX, FilterType::Triangle).to_rgb8();
    let blurred = DynamicImage::ImageRgb8(gaussian_blur_f32(&small, PREVIEW_SIGMA));
    renditions.push(encode("preview".to_owned(), &blurred)?);
    Ok(renditions)
}

/// Reads the original at `media/<id>/original`, writes its renditions beside it, and gives their places. Doing it again is harmless.
pub async fn publish(store: &dyn ObjectStore, media_id: &str) -> Result<Vec<Path>, MediaError> {
    let original = store.get(&place(media_id, "original")).await?.bytes().await?;
    let mut places = Vec::new();
    for rendition in render(&original)? {
        let place = place(media_id, &rendition.name);
        store.put(&place, rendition.bytes.into()).await?;
        places.push(place);
    }
    Ok(places)
}

/// Where a media's original or rendition is kept.
pub fn place(media_id: &str, name: &str) -> Path {
    Path::from_iter(["media", media_id, name])
}

fn decode(original: &[u8], pixels_max: u64) -> Result<DynamicImage, MediaError> {
    let dimensions = reader(original)?.into_dimensions().map_err(MediaError::Decode)?;
    let pixels = u64::from(dimensions.0) * u64::from(dimensions.1);
    if pixels > pixels_max {
        return Err(MediaError::TooLarge { pixels, pixels_max });
    }
    let mut reader = reader(original)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODE_BYTES_MAX);
    reader.limits(limits);
    reader.decode().map_err(MediaError::Decode)
}

fn reader(original: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, MediaError> {
    ImageReader::new(Cursor::new(original)).with_guessed_format().map_err(MediaError::Read)
}

fn encode(name: String, image: &DynamicImage) -> Result<Rendition, MediaError> {
    let mut bytes = Vec::new();
    // Through RGB: JPEG has no transparency. Metadata (where the photo was taken) is not carried over.
    image
        .to_rgb8()
        .write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))
        .map_err(MediaError::Encode)?;
    Ok(Rendition { name, width: image.width(), height: image.height(), bytes: bytes.into() })
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use object_store::memory::InMemory;

    use super::*;

    fn photo(width: u32, height: u32) -> Vec<u8> {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([(x % 256) as u8, (y % 256) as u8, 128]));
        let mut bytes = Vec::new();
        DynamicImage::ImageRgb8(image).write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn no_rendition_is_wider_than_the_original() {
        let names: Vec<(String, u32, u32)> =
            render(&photo(800, 400)).unwrap().into_iter().map(|r| (r.name, r.width, r.height)).collect();
        assert_eq!(
            names,
            [("w320".to_owned(), 320, 160), ("w640".to_owned(), 640, 320), ("preview".to_owned(), 48, 24)]
        );
        assert_eq!(render(&photo(100, 50)).unwrap()[0].name, "w100");
    }

    #[test]
    fn what_is_no_photo_is_refused() {
        assert!(matches!(render(b""), Err(MediaError::Decode(_))));
        assert!(matches!(render(b"GIF89a"), Err(MediaError::Decode(_))));
        let mut cut = photo(300, 300);
        cut.truncate(cut.len() / 2);
        assert!(matches!(render(&cut), Err(MediaError::Decode(_))));
    }

    #[test]
    fn too_many_pixels_are_refused_by_the_header_alone() {
        let mut header = photo(200, 100);
        header.truncate(60);
        assert!(matches!(decode(&header, 19_999), Err(MediaError::TooLarge { pixels: 20_000, pixels_max: 19_999 })));
        assert!(matches!(decode(&header, 20_000), Err(MediaError::Decode(_))));
    }

    #[tokio::test]
    async fn publishing_twice_writes_the_same() {
        let store = InMemory::new();
        store.put(&place("med_1", "original"), photo(400, 300).into()).await.unwrap();
        let first = publish(&store, "med_1").await.unwrap();
        let bytes = store.get(&first[0]).await.unwrap().bytes().await.unwrap();
        assert_eq!(publish(&store, "med_1").await.unwrap(), first);
        assert_eq!(store.get(&first[0]).await.unwrap().bytes().await.unwrap(), bytes);
        assert!(matches!(publish(&store, "med_2").await, Err(MediaError::Store(_))));
    }
}
