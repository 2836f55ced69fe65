// A photo's pixels at the captioner's size as Python has them: Pillow's antialiased bilinear filter, in whole numbers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

struct Taps {  // of one target position: the first source position, and weights of 22 bits
  int first;
  std::vector<int> weights;
};

inline std::vector<Taps> triangles(int source, int target) {
  const double scale = double(source) / target, reach = std::max(scale, 1.0);
  std::vector<Taps> taps(target);
  for (int i = 0; i < target; ++i) {
    const double centre = (i + 0.5) * scale;
    taps[i].first = std::max(0, int(centre - reach + 0.5));
    const int end = std::min(source, int(centre + reach + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int k = taps[i].first; k < end; ++k) {
      weights.push_back(std::max(0.0, 1 - std::abs((k - centre + 0.5) * (1 / reach))));
      sum += weights.back();
    }
    for (double weight : weights) taps[i].weights.push_back(int(0.5 + weight / sum * (1 << 22)));
  }
  return taps;
}

// One of the two passes: `lines` lines of samples that are `step` apart, the lines `next` apart.
inline void filter(const std::vector<uint8_t>& from, std::vector<uint8_t>& to, const std::vector<Taps>& taps, int lines,
                   int step, int next, int to_step, int to_next) {
  for (int line = 0; line < lines; ++line)
    for (size_t i = 0; i < taps.size(); ++i) {
      int sum = 1 << 21;
      for (size_t k = 0; k < taps[i].weights.size(); ++k)
        sum += from[line * next + (taps[i].first + k) * step] * taps[i].weights[k];
      to[line * to_next + i * to_step] = uint8_t(std::clamp(sum >> 22, 0, 255));
    }
}

// RGB rows (height * width * 3) to size * size * 3.
inline std::vector<uint8_t> resized(const std::vector<uint8_t>& rgb, int width, int height, int size) {
  const auto across = triangles(width, size), down = triangles(height, size);
  std::vector<uint8_t> out(size * size * 3);
  const bool down_first = height > size && 2 * (width - size) < height - size;  // Pillow's order decides the rounding
  const int columns = down_first ? width : size, rows = down_first ? size : height;
  std::vector<uint8_t> between(size_t(columns) * rows * 3);
  for (int c = 0; c < 3; ++c) {
    const auto channel = [c](const std::vector<uint8_t>& all) { return std::vector<uint8_t>(all.begin() + c, all.end()); };
    std::vector<uint8_t> half(between.size());
    if (down_first) filter(channel(rgb), half, down, width, width * 3, 3, width * 3, 3);
    else filter(channel(rgb), half, across, height, 3, width * 3, 3, size * 3);
    std::vector<uint8_t> whole(out.size());
    if (down_first) filter(half, whole, across, size, 3, width * 3, 3, size * 3);
    else filter(half, whole, down, size, size * 3, 3, size * 3, 3);
    for (size_t i = 0; i < out.size(); i += 3) out[i + c] = whole[i];
  }
  return out;
}
