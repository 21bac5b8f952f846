// From pixels of the size that the model saw to pixels of the picture that was sent.

import type { Region } from "./regions.ts";

export interface Size {
  width: number;
  height: number;
}

/** What the server tells of a picture or clip. */
export interface SeenMedia {
  kind: "image" | "video";
  original: Size;
  seen: Size;
  scale: { x: number; y: number };
  tokens: number;
  frames: number;
}

/** The region's place in a picture that is shown in this size. Without word of the size that the model saw, it is taken
 * to have seen the picture as it is. */
export function placed(region: Region, media: SeenMedia | undefined, shown: Size): number[] {
  const seen = media?.seen ?? shown;
  const factor = [shown.width / Math.max(1, seen.width), shown.height / Math.max(1, seen.height)];
  const limit = [shown.width, shown.height];
  // A model may be off by some pixels; what lies outside is still to be seen at the edge.
  return region.at.map((value, index) => {
    const axis = index % 2;
    return Math.min(Math.max(value * (factor[axis] ?? 1), 0), limit[axis] ?? 0);
  });
}

/** The innermost region at a place, of those given in pixels as shown. A point is hit within `reach`. */
export function hit(placedRegions: number[][], x: number, y: number, reach: number): number | null {
  let best: number | null = null;
  let smallest = Infinity;
  placedRegions.forEach((at, index) => {
    let area: number;
    if (at.length === 2) {
      if (Math.hypot(x - (at[0] ?? 0), y - (at[1] ?? 0)) > reach) return;
      area = 0;
    } else {
      const [x1 = 0, y1 = 0, x2 = 0, y2 = 0] = at;
      const inside = x >= x1 - reach && x <= x2 + reach && y >= y1 - reach && y <= y2 + reach;
      if (!inside) return;
      area = (x2 - x1) * (y2 - y1);
    }
    if (area < smallest) {
      smallest = area;
      best = index;
    }
  });
  return best;
}
