"""PSNR and SSIM of engines against ground truth."""
