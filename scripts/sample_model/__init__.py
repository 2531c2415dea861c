"""Make the sample model: draw cartoon scenes, train the NewBie classes on them at small size, export the weights."""
