//! `ocellus ask --draw`: the picture with the boxes and points of the answer on it, as a PNG file.

use std::convert::Infallible;
use std::path::Path;

use anyhow::Context;
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle, iso_8859_1};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{
    Circle, PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, StrokeAlignment,
};
use embedded_graphics::text::{Baseline, Text};
use ocellus_engine::{Picture, encode_png};

use crate::located::{Located, Place};

/// One for each place in turn, told apart by eyes that confuse red and green as well.
const COLOURS: [Rgb888; 6] = [
    Rgb888::new(0xd5, 0x00, 0x32),
    Rgb888::new(0x00, 0x72, 0xb2),
    Rgb888::new(0x00, 0x8a, 0x5e),
    Rgb888::new(0xb0, 0x4a, 0x00),
    Rgb888::new(0x8a, 0x3f, 0xa8),
    Rgb888::new(0x3a, 0x3a, 0x3a),
];

/// Draws the places, which are in pixels of `seen` (height, width), onto the picture and writes it.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn write(
    picture: Picture,
    seen: (usize, usize),
    places: &[Located],
    path: &Path,
) -> anyhow::Result<()> {
    let canvas = draw(picture, seen, places);
    let write = || std::fs::write(path, encode_png(&canvas.picture)?);
    write().with_context(|| path.display().to_string())
}

fn draw(picture: Picture, seen: (usize, usize), places: &[Located]) -> Canvas {
    let to_x = picture.width as f64 / seen.1.max(1) as f64;
    let to_y = picture.height as f64 / seen.0.max(1) as f64;
    let side = picture.width.min(picture.height);
    // Lines and letters that can be seen when a large picture is shown small.
    let stroke = (side / 250).clamp(2, 16) as u32;
    let font = if side < 300 { &iso_8859_1::FONT_7X13_BOLD } else { &iso_8859_1::FONT_10X20 };
    let mut canvas = Canvas { picture };
    for (index, located) in places.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let at = |x: f64, y: f64| {
            Point::new(pixel(x * to_x, canvas.picture.width), pixel(y * to_y, canvas.picture.height))
        };
        let corner = match located.place {
            Place::Box { x1, y1, x2, y2 } => {
                // The last pixels are outside, as in a slice.
                let frame = Rectangle::with_corners(at(x1, y1), at(x2, y2) - Point::new(1, 1));
                let style = PrimitiveStyleBuilder::new()
                    .stroke_color(colour)
                    .stroke_width(stroke)
                    .stroke_alignment(StrokeAlignment::Outside);
                let Ok(()) = frame.into_styled(style.build()).draw(&mut canvas);
                frame.top_left
            }
            Place::Point { x, y } => {
                let centre = at(x, y);
                for (diameter, colour) in [(stroke * 6, Rgb888::WHITE), (stroke * 4, colour)] {
                    let dot = Circle::with_center(centre, diameter + 1);
                    let Ok(()) = dot.into_styled(PrimitiveStyle::with_fill(colour)).draw(&mut canvas);
                }
                centre + Point::new(stroke as i32 * 4, 0)
            }
        };
        canvas.label(&located.label, corner, colour, font);
    }
    canvas
}

/// Far outside is as good as a little outside, and costs less to draw.
fn pixel(value: f64, side: usize) -> i32 {
    value.round().clamp(-100.0, side as f64 + 100.0) as i32
}

struct Canvas {
    picture: Picture,
}

impl Canvas {
    /// White letters on the colour of the place, above its corner where there is room and within the picture.
    fn label(&mut self, text: &str, corner: Point, colour: Rgb888, font: &MonoFont<'_>) {
        if text.is_empty() {
            return;
        }
        let letter = font.character_size;
        let size = Size::new(letter.width * text.chars().count() as u32 + 4, letter.height + 2);
        let room = |length: usize, needed: u32| (length as i32 - needed as i32).max(0);
        let at = Point::new(
            corner.x.clamp(0, room(self.picture.width, size.width)),
            (corner.y - size.height as i32).clamp(0, room(self.picture.height, size.height)),
        );
        let ground = Rectangle::new(at, size).into_styled(PrimitiveStyle::with_fill(colour));
        let Ok(()) = ground.draw(self);
        let style = MonoTextStyle::new(font, Rgb888::WHITE);
        let text = Text::with_baseline(text, at + Point::new(2, 1), style, Baseline::Top);
        let Ok(_) = text.draw(self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.picture.width as u32, self.picture.height as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        let (width, height) = (self.picture.width, self.picture.height);
        for Pixel(at, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y)) else { continue };
            if x < width && y < height {
                let first = 3 * (y * width + x);
                if let Some(spot) = self.picture.rgb.get_mut(first..first + 3) {
                    spot.copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(height: usize, width: usize) -> Picture {
        Picture { height, width, rgb: vec![128; height * width * 3].into() }
    }

    fn at(canvas: &Canvas, x: usize, y: usize) -> Rgb888 {
        let first = 3 * (y * canvas.picture.width + x);
        let [r, g, b] = canvas.picture.rgb[first..first + 3] else { panic!("outside") };
        Rgb888::new(r, g, b)
    }

    fn boxed(x1: f64, y1: f64, x2: f64, y2: f64, label: &str) -> Located {
        Located { place: Place::Box { x1, y1, x2, y2 }, label: label.to_owned() }
    }

    #[test]
    fn a_box_is_around_what_was_seen() {
        // Seen at half the width and a third of the height.
        let canvas = draw(grey(300, 200), (100, 100), &[boxed(20.0, 40.0, 50.0, 60.0, "")]);
        let grey = Rgb888::new(128, 128, 128);
        for (x, y) in [(39, 150), (38, 150), (100, 150), (101, 150), (70, 119), (70, 118), (70, 180)] {
            assert_eq!(at(&canvas, x, y), COLOURS[0], "{x} {y}");
        }
        for (x, y) in [(40, 150), (99, 150), (37, 150), (102, 150), (70, 120), (70, 179)] {
            assert_eq!(at(&canvas, x, y), grey, "{x} {y}");
        }
    }

    #[test]
    fn labels_and_points_stay_within() {
        let point = Located { place: Place::Point { x: 10.0, y: 40.0 }, label: "a point".to_owned() };
        let canvas = draw(grey(56, 84), (56, 84), &[point, boxed(70.0, 1.0, 80.0, 20.0, "a long label")]);
        assert_eq!(at(&canvas, 10, 40), COLOURS[0]);
        // The label's ground reaches the left edge, since it is as wide as the picture.
        assert_eq!(at(&canvas, 0, 0), COLOURS[1]);
    }

    #[test]
    fn nonsense_draws_nothing_and_does_no_harm() {
        let far = [1e300, -1e300, 0.0, 1e9];
        for x1 in far {
            for y2 in far {
                let x2 = x1 + 1.0;
                draw(grey(9, 7), (28, 28), &[boxed(x1, 5.0, x2, y2, "x".repeat(80).as_str())]);
            }
        }
        draw(grey(1, 1), (0, 0), &[boxed(0.0, 0.0, 0.0, 0.0, "")]);
    }
}
