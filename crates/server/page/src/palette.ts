// Colours of regions: dark enough that white letters can be read on them, and no two neighbours alike.

export const PALETTE = ["#c2255c", "#1864ab", "#2b7a39", "#a33c00", "#6741d9", "#0b7285", "#862e9c", "#6b4f00"];

export function colour(index: number): string {
  return PALETTE[index % PALETTE.length] ?? "#c2255c";
}
