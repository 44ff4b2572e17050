if ask.look then return look() end
return poll()
