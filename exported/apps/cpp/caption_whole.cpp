// The same with a bundle of one graph for whole captions (capexport convert --fused): no loop, no cache.
//
//     c++ -std=c++17 -O2 caption_whole.cpp -I ONNXRUNTIME/include -L ONNXRUNTIME/lib -lonnxruntime -o caption_whole
#include <onnxruntime_cxx_api.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "pixels.h"

int main(int count, char** arguments) try {
  if (count != 3) return std::cerr << "caption_whole BUNDLE PHOTO.ppm\n", 2;
  const std::string bundle = arguments[1];
  Ort::Env env;
  Ort::Session captioner(env, (bundle + "/captioner.onnx").c_str(), Ort::SessionOptions{});
  std::ifstream list(bundle + "/vocabulary.txt"), file(arguments[2], std::ios::binary);
  std::vector<std::string> words;
  for (std::string line; std::getline(list, line);) words.push_back(line);
  std::string magic;
  int width = 0, height = 0, most = 0;
  file >> magic >> width >> height >> most;
  file.get();
  const std::vector<uint8_t> rgb{std::istreambuf_iterator<char>(file), {}};
  if (magic != "P6" || most != 255 || rgb.size() != size_t(width) * height * 3)
    return std::cerr << arguments[2] << " is no PPM file (P6) of 8 bits.\n", 2;
  const int64_t size = captioner.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape()[1];
  auto pixels = resized(rgb, width, height, int(size));
  const int64_t shape[] = {1, size, size, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto image = Ort::Value::CreateTensor(memory, pixels.data(), pixels.size(), shape, 4);
  const char *input = "image", *output = "tokens";
  const auto outputs = captioner.Run({}, &input, &image, 1, &output, 1);
  const int32_t* tokens = outputs[0].GetTensorData<int32_t>();
  for (size_t i = 0; words[tokens[i]] != "[END]"; ++i) std::cout << (i ? " " : "") << words[tokens[i]];
  std::cout << '\n';
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
