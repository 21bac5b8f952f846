//! Pictures for tests, drawn without any codec.

/// A bitmap file of 24 bits per pixel whose colours change from pixel to pixel.
pub fn bmp(height: u32, width: u32) -> Vec<u8> {
    let row_bytes = (width as usize * 3).next_multiple_of(4);
    let pixel_bytes = row_bytes * height as usize;
    let mut file = b"BM".to_vec();
    for number in [54 + pixel_bytes as u32, 0, 54, 40, width, height] {
        file.extend(number.to_le_bytes());
    }
    // One plane of 24 bits, not compressed; the rest of the header may be zero.
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    for y in 0..height {
        let end = file.len() + row_bytes;
        file.extend((0..width).flat_map(|x| [(x * 7) as u8, (y * 5) as u8, x.wrapping_mul(y) as u8]));
        file.resize(end, 0);
    }
    file
}

/// A PNG file of 8-bit grey levels that change from pixel to pixel, not compressed.
pub fn png(height: u32, width: u32) -> Vec<u8> {
    let rows = (0..height).flat_map(|y| {
        // Each row begins with the number of its filter: none.
        std::iter::once(0).chain((0..width).map(move |x| (x.wrapping_mul(3) ^ y.wrapping_mul(5)) as u8))
    });
    let rows: Vec<u8> = rows.collect();
    let mut data = vec![0x78, 0x01];
    let mut blocks = rows.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        data.push(u8::from(blocks.peek().is_none()));
        data.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        data.extend(block);
    }
    data.extend(adler32(&rows).to_be_bytes());
    [png_start(height, width), png_chunk(b"IDAT", &data), png_chunk(b"IEND", &[])].concat()
}

/// The signature and header that [`png`] writes; alone, a file that ends before its first pixel.
pub fn png_start(height: u32, width: u32) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 0, 0, 0, 0]);
    [b"\x89PNG\r\n\x1a\n".to_vec(), png_chunk(b"IHDR", &header)].concat()
}

fn png_chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    [&(data.len() as u32).to_be_bytes(), &body[..], &crc32(&body).to_be_bytes()].concat()
}

/// The checksum of a PNG chunk (PNG specification, annex D), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// The checksum of a zlib stream (RFC 1950).
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

/// A TIFF file of 8-bit grey levels in one strip, not compressed.
pub fn tiff(height: u32, width: u32) -> Vec<u8> {
    let pixels = height * width;
    let entry = |tag: u16, kind: u16, value: u32| {
        [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &1u32.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    // Width, height, bits, no compression, black is zero, where the strip lies, one sample, rows and bytes of the strip.
    let entries = [
        entry(256, 4, width),
        entry(257, 4, height),
        entry(258, 3, 8),
        entry(259, 3, 1),
        entry(262, 3, 1),
        entry(273, 4, 8),
        entry(277, 3, 1),
        entry(278, 4, height),
        entry(279, 4, pixels),
    ];
    let directory = 8 + pixels.next_multiple_of(2);
    let mut file = [&b"II\x2a\0"[..], &directory.to_le_bytes()].concat();
    file.extend((0..pixels).map(|pixel| (pixel % 251) as u8));
    file.resize(directory as usize, 0);
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend(entries.concat());
    file.extend(0u32.to_le_bytes());
    file
}
